"""The strict parse of a suite's galaxy: who is there, under which labels and addresses. Pure.

    galaxy:
      namespaces: {empire: {org: empire}}                      # labels
      pods:
        deathstar: {namespace: empire, labels: {…}, serves: [80], echoes: [5353], named: {web: 80, dns: 5353/UDP}}
        executor: {remote: true, labels: {…}}                  # on another node
        kafka: {name: empire-kafka-0, topics: [announce]}      # a broker; its name is another one in Kubernetes
      hosts:
        hoth: {v4: 203.0.113.7, v6: "2001:db8:113::7"}         # outside the cluster
        endor: {v4: …, v6: …, node: {zone: forest}}            # another node, with its labels
      services:
        deathstar: {namespace: empire, port: 80, target_port: 80, selector: {…}}
        hoth: {port: 80, hosts: [hoth]}                        # without a selector
        kube-dns: {port: 53, protocols: [UDP, TCP], selector: {…}}
      names:                                                   # what pods that `resolves: true` answer
        api.github.com: {hosts: [hoth], ttl: 30}
        alias.github.com: {cname: api.github.com, records: ["TXT hello"]}
        many.github.com: {more: 80}                            # so many addresses that nobody has
      objects: [{apiVersion: …}]                               # whatever else the cluster has

`galaxy: starwars` is the galaxy of the demo.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from conformance.blueprint import (
    FIRST_POD_HOST,
    FIRST_SERVICE_HOST,
    MORE_MAX,
    POD_NET_V4,
    POD_NET_V6,
    REMOTE_POD_NET_V4,
    REMOTE_POD_NET_V6,
    SERVICE_NET_V4,
    SERVICE_NET_V6,
    Blueprint,
    DnsName,
    Host,
    NamedPort,
    Pod,
    Service,
    star_wars,
)
from conformance.errors import SuiteError
from conformance.fields import Fields

READY_MADE = {"starwars": star_wars}
ALIAS_MAX = 11  # of a pod: its host-side veth is named pod-ALIAS, and IFNAMSIZ is 15


def parse_galaxy(value: Any, name: str) -> Blueprint:
    """The galaxy of suite `name`. Raises SuiteError with the field path."""
    if isinstance(value, str):
        if value not in READY_MADE:
            raise SuiteError("galaxy", f"{value!r} is none of {', '.join(READY_MADE)}: write it down as a mapping")
        return READY_MADE[value]()
    fields = Fields.of(value, "galaxy")
    namespaces = {space: _labels(entry) for space, entry in fields.entries("namespaces")}
    namespaces.setdefault("default", {})
    pods = tuple(_pod(alias, entry, n) for n, (alias, entry) in enumerate(fields.entries("pods"), FIRST_POD_HOST))
    hosts = tuple(_host(host, entry) for host, entry in fields.entries("hosts"))
    services = tuple(
        _service(service, entry, n, pods, hosts)
        for n, (service, entry) in enumerate(fields.entries("services"), FIRST_SERVICE_HOST)
    )
    objects = tuple(
        Fields.of(entry, f"galaxy.objects[{n}]").value for n, entry in enumerate(fields.take("objects", list, []))
    )
    names = tuple(parse_name(name, entry, hosts) for name, entry in fields.entries("names"))
    fields.done()
    for host in hosts:
        if any(host.name == pod.alias for pod in pods):
            raise SuiteError(f"galaxy.hosts.{host.name}", "there is a pod of that name")
    known = {pod.namespace for pod in pods} | {service.namespace for service in services}
    for unknown in sorted(known - set(namespaces)):
        raise SuiteError("galaxy.namespaces", f"there is no namespace {unknown!r}")
    return Blueprint(name, pods, services, namespaces, hosts, objects, names)


def _labels(entry: Fields) -> Mapping[str, str]:
    return {key: str(value) for key, value in entry.value.items()}


def _pod(alias: str, entry: Fields, host: int) -> Pod:
    if len(alias) > ALIAS_MAX:
        raise SuiteError(entry.path, f"a pod's name has at most {ALIAS_MAX} characters")
    remote = entry.take("remote", bool, False)
    v4, v6 = (REMOTE_POD_NET_V4, REMOTE_POD_NET_V6) if remote else (POD_NET_V4, POD_NET_V6)
    pod = Pod(
        alias=alias,
        name=entry.take("name", str, alias),
        labels=tuple(sorted(entry.strings("labels").items())),
        v4=v4.format(host),
        v6=v6.format(host),
        namespace=entry.take("namespace", str, "default"),
        serves=entry.numbers("serves"),
        echoes=entry.numbers("echoes"),
        named=tuple(_named(name, text, entry) for name, text in entry.strings("named").items()),
        remote=remote,
        resolves=entry.take("resolves", bool, False),
        topics=entry.names("topics", []),
    )
    entry.done()
    return pod


def _named(name: str, text: str, entry: Fields) -> NamedPort:
    number, _, protocol = text.partition("/")
    if not number.isdecimal() or protocol not in ("", "TCP", "UDP", "SCTP"):
        raise SuiteError(f"{entry.path}.named.{name}", f"{text!r} is not NUMBER or NUMBER/PROTOCOL")
    return NamedPort(name, int(number), protocol or "TCP")


def _host(name: str, entry: Fields) -> Host:
    addresses = {family: entry.take(family, str) for family in ("v4", "v6")}
    for family, address in addresses.items():
        try:
            right = f"v{ipaddress.ip_address(address).version}" == family
        except ValueError:
            right = False
        if not right:
            raise SuiteError(f"{entry.path}.{family}", f"{address!r} is no such address")
    labels = entry.strings("node") if "node" in entry.value else None
    entry.done()
    return Host(name, addresses["v4"], addresses["v6"], labels)


def parse_name(name: str, entry: Fields, hosts: tuple[Host, ...]) -> DnsName:
    """What nameservers say of a name. Raises SuiteError."""
    found = DnsName(
        name=name,
        hosts=entry.names("hosts", []),
        more=entry.take("more", int, 0),
        cname=entry.take("cname", str, ""),
        records=entry.names("records", []),
        ttl=entry.take("ttl", int, 60),
    )
    entry.done()
    for unknown in sorted(set(found.hosts) - {host.name for host in hosts}):
        raise SuiteError(f"{entry.path}.hosts", f"there is no host {unknown!r}")
    if found.cname and (found.hosts or found.more):
        raise SuiteError(f"{entry.path}.cname", "a name with a CNAME has no addresses of its own")
    if not 0 <= found.more <= MORE_MAX:
        raise SuiteError(f"{entry.path}.more", f"is not within 0..{MORE_MAX}")
    return found


def _service(name: str, entry: Fields, number: int, pods: tuple[Pod, ...], hosts: tuple[Host, ...]) -> Service:
    namespace, selector = entry.take("namespace", str, "default"), entry.strings("selector")
    listed = entry.names("hosts", [])
    behind: list[Pod | Host] = [host for host in hosts if host.name in listed]
    if bool(listed) == bool(selector) or len(behind) != len(listed):
        raise SuiteError(entry.path, "needs a selector, or hosts of the galaxy")
    if selector:
        behind = [p for p in pods if p.namespace == namespace and selector.items() <= dict(p.labels).items()]
    port = entry.take("port", int, 80)
    service = Service(
        name=name,
        v4=SERVICE_NET_V4.format(number),
        v6=SERVICE_NET_V6.format(number),
        port=port,
        target_port=entry.take("target_port", int, port),
        selector=tuple(sorted(selector.items())),
        backends=tuple(behind),
        namespace=namespace,
        labels=tuple(sorted(entry.strings("labels").items())),
        protocols=entry.names("protocols", ["TCP"]),
    )
    if not service.protocols or any(transport not in ("TCP", "UDP") for transport in service.protocols):
        raise SuiteError(f"{entry.path}.protocols", "must name TCP or UDP")
    entry.done()
    return service
