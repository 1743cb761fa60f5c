"""Who lives where, kept from view to view: the same as if it were made anew each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.views.whereabouts import Whereabouts
from policies.ir import Address, NodePolicy, ServiceAddress
from policies.objects import Pod, PodKey, Service, ServicePort
from policies.prefixes import parse_prefix
from policies.types import Protocol
from policies.world import World

PREFIXES = ("10.0.0.1/32", "10.0.0.2/32", "fd00::/32", "fd00::/128", "10.0.0.0/8", "0.0.0.0/0")
IPS = ("10.0.0.1", "10.0.0.2", "fd00::")
_addresses = st.dictionaries(st.sampled_from(PREFIXES), st.integers(256, 258), max_size=6)
_pods = st.dictionaries(st.sampled_from("abc"), st.tuples(st.sampled_from(IPS), st.sampled_from(["Running", "Failed"])))
_services = st.dictionaries(st.sampled_from(["10.96.0.1", "10.96.0.2"]), st.integers(256, 258), max_size=2)


@given(st.lists(st.tuples(_addresses, _pods, _services), max_size=8))
def test_following_is_the_same_as_making_anew(
    story: list[tuple[dict[str, int], dict[str, tuple[str, str]], dict[str, int]]],
) -> None:
    followed, objects = Whereabouts(), dict[tuple[str, tuple[str, str]], Pod]()
    for addresses, pods, services in story:
        table = tuple(Address(prefix, identity) for prefix, identity in sorted(addresses.items()))
        frontends = tuple(ServiceAddress(ip, 80, Protocol.TCP, who, 8080) for ip, who in sorted(services.items()))
        known = {}
        for name, (ip, phase) in sorted(pods.items()):
            pod = Pod("n", name, addresses=(ip,), phase=phase)
            known[PodKey("n", name)] = objects.setdefault((name, (ip, phase)), pod)
        port = (ServicePort("", Protocol.TCP, 80),)
        named = {PodKey("n", ip): Service("n", ip, (ip,), port) for ip in services}
        world, node = World(pods=known, services=named), NodePolicy(1, addresses=table, services=frontends)
        followed, anew = followed.then(world, node), Whereabouts().then(world, node)
        for ip in (*IPS, "10.96.0.1", "10.96.0.2"):
            assert followed.identity(ip) == anew.identity(ip)
            assert followed.pod(ip) == anew.pod(ip)
        assert (followed.services, followed.targets) == (anew.services, anew.targets)
        for ip in IPS:
            assert followed.prefixes.longest(parse_prefix(ip)) == anew.prefixes.longest(parse_prefix(ip))
