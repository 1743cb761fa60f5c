"""What a galaxy's nameservers know, as files of unbound's: the root zone, and where to serve it. Pure.

One zone for all names, so that a chain of CNAMEs is answered whole, as a resolver would.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from conformance.blueprint import MORE_NET, DnsName, Host

NEGATIVE_TTL = 5  # seconds


def zone_text(names: Iterable[DnsName], hosts: Iterable[Host], serial: int) -> str:
    """The zone file of the root."""
    known = {host.name: host for host in hosts}
    head = (
        "$TTL 60",
        f". IN SOA a.root. hostmaster.root. {serial} 3600 600 86400 {NEGATIVE_TTL}",
        ". IN NS a.root.",
        "a.root. IN A 127.0.0.1",
    )
    return "\n".join([*head, *(line for name in names for line in _records(name, known))]) + "\n"


def _records(name: DnsName, hosts: dict[str, Host]) -> Iterator[str]:
    owner = f"{name.name.rstrip('.')}. {name.ttl} IN"
    if name.cname:
        yield f"{owner} CNAME {name.cname.rstrip('.')}."
    for host in (hosts[known] for known in name.hosts):
        yield f"{owner} A {host.v4}"
        yield f"{owner} AAAA {host.v6}"
    yield from (f"{owner} A {MORE_NET.format(number)}" for number in range(1, name.more + 1))
    yield from (f"{owner} {record}" for record in name.records)


def server_text(zone_file: str) -> str:
    """The configuration of an unbound that answers from that zone alone, in the foreground, at port 53."""
    server = (
        *("interface: 0.0.0.0", "interface: ::0", "access-control: 0.0.0.0/0 allow", "access-control: ::/0 allow"),
        *("do-daemonize: no", 'chroot: ""', 'username: ""', 'pidfile: ""', "use-syslog: no", "num-threads: 1"),
        *('module-config: "iterator"', "edns-buffer-size: 1232", "max-udp-size: 1232", "rrset-roundrobin: no"),
    )
    zone = ('name: "."', f'zonefile: "{zone_file}"', "for-downstream: yes", "for-upstream: no", "fallback-enabled: no")
    parts = {"server": server, "remote-control": ("control-enable: no",), "auth-zone": zone}
    return "".join(f"{part}:\n" + "".join(f"  {line}\n" for line in lines) for part, lines in parts.items())
