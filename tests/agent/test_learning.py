"""From an answer to the ipcache: what is in force when a proxy is told that it is."""

from __future__ import annotations

from agent.names.book import Bounds, Rest, Sharing
from agent.names.names import NameOptions
from tests.agent.names_town import TIE, XWING, Town, allow, key, prefix
from tests.policies.language import Galaxy, backends, cidr, clause, entity, service, ship, to


def test_a_fresh_address_of_a_likely_name_needs_one_entry_and_no_compilation() -> None:
    town = Town(allow("api.github.com", "*.cdn.net"))
    assert town.tell("api.github.com", "192.0.2.7", "20010db8::7") in town.in_force
    assert town.tell("img.cdn.net", "192.0.2.8") in town.in_force
    assert town.kernel.writes == 2
    assert town.due == 0
    assert town.may("192.0.2.7")
    assert town.may("192.0.2.8")
    assert not town.may("192.0.2.7", port=80)
    assert not town.may("192.0.2.9")
    assert town.labels("192.0.2.7") == (key("api.github.com"), "reserved:world-ipv4")
    assert town.labels("20010db8::7") == (key("api.github.com"), "reserved:world-ipv6")


def test_a_name_that_nobody_selects_is_no_matter_and_is_remembered() -> None:
    town = Town(allow("api.github.com"))
    assert town.tell("evil.org", "192.0.2.7") in town.in_force
    assert not town.kernel.names
    town.apply(allow("evil.org"))
    assert town.may("192.0.2.7"), "a policy that comes later knows what was learned before"


def test_an_address_of_two_names_is_of_both_and_waits_for_its_identity() -> None:
    town = Town(allow("a.org", "b.org"))
    town.tell("a.org", "192.0.2.7")
    number = town.tell("b.org", "192.0.2.7")
    assert number not in town.in_force
    assert town.may("192.0.2.7"), "it stays what it was until it is more"
    town.loop()
    assert number in town.in_force
    assert town.labels("192.0.2.7") == (key("a.org"), key("b.org"), "reserved:world-ipv4")


def test_an_address_within_a_prefix_of_policies_is_still_of_that_prefix() -> None:
    inside = clause([cidr("192.0.2.0/24")], to(80))
    town = Town(allow("a.org", extra=[inside]))
    number = town.tell("a.org", "192.0.2.7")
    assert number not in town.in_force
    town.loop()
    assert number in town.in_force
    assert town.may("192.0.2.7", port=443)
    assert town.may("192.0.2.7", port=80)
    town.apply(allow("a.org", extra=[clause([cidr("192.0.2.0/28")], deny=True)]))
    assert not town.may("192.0.2.7")
    assert town.may("192.0.2.7", port=443) is False
    town.apply(allow("a.org"))
    assert town.may("192.0.2.7")
    assert town.labels("192.0.2.7") == (key("a.org"), "reserved:world-ipv4")


def test_names_are_of_the_world() -> None:
    town = Town(allow("a.org", extra=[clause([entity("world")], to(80))]))
    town.tell("a.org", "192.0.2.7")
    assert town.may("192.0.2.7", port=80)
    assert not town.may("192.0.2.9", port=443)


def test_pods_nodes_and_services_have_no_names() -> None:
    galaxy = Galaxy(services=[service("web")], slices=[backends("web", "10.0.0.1")])
    galaxy.services = [type(s)(s.namespace, s.name, ("10.96.0.1",)) for s in galaxy.services]
    town = Town(allow("a.org"), galaxy=galaxy)
    for taken in ("10.0.0.1", "192.0.2.1", "10.96.0.1"):  # a pod, this node, a service
        assert town.tell("a.org", taken) in town.in_force
        assert not town.kernel.names


def test_an_address_that_a_pod_gets_loses_its_names_and_has_them_again_afterwards() -> None:
    town = Town(allow("a.org"))
    town.tell("a.org", "10.0.0.9")
    pods = town.galaxy.pods
    town.galaxy.pods = (*pods, ship("late", "10.0.0.9"))
    town.loop()
    assert not town.kernel.names
    town.galaxy.pods = pods
    town.loop()
    assert town.may("10.0.0.9")


def test_what_is_learned_while_a_policy_is_programmed_is_in_force_under_both() -> None:
    town = Town(allow("a.org", "b.org"))
    town.policies = (allow("a.org", "c.org"),)
    node = town.compile()  # b.org's identity goes, c.org's comes
    a, b, c = town.tell("a.org", "192.0.2.11"), town.tell("b.org", "192.0.2.2"), town.tell("c.org", "192.0.2.3")
    assert a in town.in_force, "it is in the old policy and in the new one"
    assert c not in town.in_force
    assert b in town.in_force, "nobody is to reach it: there is nothing to wait for"
    town.kernel.program(node)
    town.learning.enforced(node.endpoints)
    assert c in town.in_force
    assert town.may("192.0.2.3")
    assert not town.may("192.0.2.2")


def test_nothing_is_in_force_that_could_not_be_programmed() -> None:
    town = Town(allow("a.org", "b.org"))
    town.tell("a.org", "192.0.2.7")
    number = town.tell("b.org", "192.0.2.7")
    town.compile()  # and then the kernel refuses
    assert number not in town.in_force
    again = town.tell("b.org", "192.0.2.7")
    assert again not in town.in_force
    town.loop()
    assert {number, again} <= set(town.in_force)


def test_a_policy_that_goes_takes_its_names_out_of_force() -> None:
    town = Town(allow("a.org"))
    town.tell("a.org", "192.0.2.7")
    used = len(town.identities.in_use(_local()))
    assert used == 2  # of each family
    town.apply()
    assert not town.kernel.names
    assert not town.identities.in_use(_local())
    town.apply(allow("a.org"))
    assert town.may("192.0.2.7"), "the name was not forgotten"


class TestBounds:
    def test_what_a_bound_refuses_is_withheld(self) -> None:
        town = Town(allow("*.org"), options=NameOptions(bounds=Bounds(per_endpoint=2)))
        first = town.tell("a.org", "192.0.2.11", "192.0.2.2")
        second = town.tell("b.org", "192.0.2.3")
        assert town.in_force == [first]
        assert town.cannot_be == [second]
        assert town.tell("b.org", "192.0.2.3", by=XWING) in town.in_force

    def test_names_that_nobody_selects_take_no_room_of_others(self) -> None:
        town = Town(allow("a.org"), options=NameOptions(bounds=Bounds(per_endpoint=2)))
        for n in range(5000):
            town.tell(f"x{n}.evil.org", "203.0.113.9")
        assert town.tell("a.org", "192.0.2.11", "192.0.2.2") in town.in_force
        assert len(town.names.overheard) == 1000

    def test_a_full_map_refuses_and_the_next_compilation_tries_again(self) -> None:
        town = Town(allow("a.org"))
        town.kernel.room = 0
        number = town.tell("a.org", "192.0.2.11")
        assert town.cannot_be == [number]
        town.kernel.room = 10
        town.loop()
        assert town.may("192.0.2.11")

    def test_a_full_disk_keeps_nobody_from_answers(self) -> None:
        """What the journal has not got, the next agent closes; a pod without names would be worse off at once."""
        town = Town(allow("a.org"))
        town.paper.is_full = True
        assert town.tell("a.org", "192.0.2.11") in town.in_force
        assert town.may("192.0.2.11")
        assert town.learning.counts.unwritten == 1

    def test_a_pod_that_nobody_knows_learns_nothing(self) -> None:
        town = Town(allow("a.org"))
        assert town.tell("a.org", "192.0.2.11", by="10.9.9.9") in town.cannot_be
        assert town.tell("b.org", "192.0.2.11", by="10.9.9.9") in town.in_force

    def test_nobody_waits_for_ever(self) -> None:
        town = Town(allow("a.org", "b.org"))
        town.tell("a.org", "192.0.2.7")
        number = town.tell("b.org", "192.0.2.7")
        town.now += 60
        town.learning.tidy()
        assert town.cannot_be == [number]
        assert not town.learning.waiting


class TestCollection:
    def test_an_expired_name_is_closed_and_its_identity_stays_ready(self) -> None:
        town = Town(allow("a.org"))
        town.tell("a.org", "192.0.2.7")
        town.collect(alive=["192.0.2.7"])
        assert town.may("192.0.2.7")
        town.collect()
        assert not town.kernel.names
        assert not town.paper.held
        assert town.due == 0
        assert town.tell("a.org", "192.0.2.7") in town.in_force

    def test_an_address_that_loses_one_of_its_names_keeps_the_other(self) -> None:
        town = Town(allow("a.org", "b.org"))
        town.tell("a.org", "192.0.2.7", ttl=5)
        town.tell("b.org", "192.0.2.7", ttl=100_000)
        town.loop()
        town.collect()
        town.loop()
        assert town.labels("192.0.2.7") == (key("b.org"), "reserved:world-ipv4")
        assert town.may("192.0.2.7")

    def test_the_floor_of_ttls(self) -> None:
        town = Town(allow("a.org"), options=NameOptions(min_ttl=3600, rest=Rest(linger=0.0)))
        town.tell("a.org", "192.0.2.7", ttl=0)
        town.collect()
        assert town.may("192.0.2.7")

    def test_a_pod_that_goes_leaves_nothing_for_ever(self) -> None:
        town = Town(allow("a.org"))
        town.tell("a.org", "192.0.2.7", ttl=1_000_000)
        town.galaxy.pods = town.galaxy.pods[:1]
        town.loop()
        town.collect()
        assert not town.kernel.names


class TestRestart:
    def test_a_new_agent_moves_nothing(self) -> None:
        town = Town(allow("a.org", "b.org", "*.net"))
        town.tell("a.org", "192.0.2.7")
        town.tell("b.org", "192.0.2.7")
        town.tell("x.net", "192.0.2.8")
        town.loop()
        before = dict(town.kernel.names)
        again = Town(allow("a.org", "b.org", "*.net"), after=town)
        assert again.kernel.names == before
        assert again.learning.counts.restored == 3
        assert again.may("192.0.2.7")

    def test_policies_that_changed_meanwhile_hold_for_names_from_the_first_moment(self) -> None:
        town = Town(allow("a.org"))
        town.tell("a.org", "192.0.2.7")
        again = Town(allow("b.org"), after=town)
        assert not again.kernel.names
        third = Town(allow("*.org", extra=[clause([cidr("192.0.2.0/24")], to(80))]), after=again)
        assert third.may("192.0.2.7")
        assert third.may("192.0.2.7", port=80)

    def test_what_was_learned_before_a_policy_selected_it_survives_too(self) -> None:
        town = Town(allow("a.org"))
        town.tell("b.org", "192.0.2.7")
        town.apply(allow("b.org"))
        assert town.may("192.0.2.7")
        assert Town(allow("b.org"), after=town).may("192.0.2.7")

    def test_what_a_pod_learned_that_went_meanwhile_goes_too(self) -> None:
        town = Town(allow("a.org"))
        town.tell("a.org", "192.0.2.7", by=XWING, ttl=1_000_000)
        town.galaxy.pods = town.galaxy.pods[:2]
        again = Town(allow("a.org"), after=town)
        again.collect()
        assert not again.kernel.names


class TestSharing:
    """--fqdn-sharing=endpoint: replicas with the same labels and the same policy do not share either."""

    def test_what_a_pod_has_learned_is_open_to_it_alone(self) -> None:
        town = Town(allow("a.org"), options=NameOptions(sharing=Sharing.ENDPOINT))
        assert town.tell("a.org", "192.0.2.7", by=TIE) in town.in_force
        assert town.due == 0
        assert town.may("192.0.2.7", by=TIE)
        assert not town.may("192.0.2.7", by=XWING)
        assert town.tell("a.org", "192.0.2.7", by=XWING) in town.in_force
        assert town.may("192.0.2.7", by=XWING)

    def test_names_of_others_do_not_add_up(self) -> None:
        town = Town(allow("a.org", "b.org"), options=NameOptions(sharing=Sharing.ENDPOINT))
        town.tell("a.org", "192.0.2.7", by=TIE)
        town.tell("b.org", "192.0.2.7", by=XWING)
        assert town.due == 0, "no address is of two names"
        labels = {home.endpoint: town.identities.labels(number) for home, number in town.kernel.names.items()}
        tie, xwing = town.learning.endpoint(TIE), town.learning.endpoint(XWING)
        assert labels == {
            tie: (key("a.org"), "reserved:world-ipv4"),
            xwing: (key("b.org"), "reserved:world-ipv4"),
        }

    def test_what_is_collected_of_one_stays_with_the_other(self) -> None:
        town = Town(allow("a.org"), options=NameOptions(sharing=Sharing.ENDPOINT))
        town.tell("a.org", "192.0.2.7", by=TIE)
        town.tell("a.org", "192.0.2.7", by=XWING, ttl=1_000_000)
        town.collect()
        assert not town.may("192.0.2.7", by=TIE)
        assert town.may("192.0.2.7", by=XWING)

    def test_a_new_agent_moves_nothing(self) -> None:
        options = NameOptions(sharing=Sharing.ENDPOINT)
        town = Town(allow("a.org"), options=options)
        town.tell("a.org", "192.0.2.7", by=TIE)
        before = dict(town.kernel.names)
        assert Town(allow("a.org"), options=options, after=town).kernel.names == before

    def test_another_way_of_sharing_holds_from_the_start_of_the_next_agent(self) -> None:
        town = Town(allow("a.org"))
        town.tell("a.org", "192.0.2.7", by=TIE)
        assert town.may("192.0.2.7", by=XWING)
        again = Town(allow("a.org"), options=NameOptions(sharing=Sharing.ENDPOINT), after=town)
        assert again.may("192.0.2.7", by=TIE)
        assert not again.may("192.0.2.7", by=XWING)

    def test_an_address_that_a_pod_gets_is_nobodys_name(self) -> None:
        town = Town(allow("a.org"), options=NameOptions(sharing=Sharing.ENDPOINT))
        town.tell("a.org", "10.0.0.9", by=TIE)
        town.galaxy.pods = (*town.galaxy.pods, ship("late", "10.0.0.9"))
        town.loop()
        assert not town.kernel.names


def test_targets_of_aliases_are_names_only_where_that_is_asked_for() -> None:
    for options, opened in ((NameOptions(), False), (NameOptions(targets=True), True)):
        town = Town(allow("*.cdn.net"), options=options)
        town.tell("www.org", "192.0.2.7", targets=["edge.cdn.net"])
        assert town.may("192.0.2.7") is opened


def test_flows_know_the_names_under_which_a_pod_knows_an_address() -> None:
    town = Town(allow("a.org"))
    town.tell("a.org", "192.0.2.7", by=TIE)
    town.tell("other.org", "192.0.2.7", by=TIE)
    tie, xwing = town.learning.endpoint(TIE), town.learning.endpoint(XWING)
    assert tie is not None
    assert xwing is not None
    address = prefix("192.0.2.7").network.to_bytes(4, "big")
    assert town.names.names_of(address, tie) == ("a.org.", "other.org.")
    assert town.names.names_of(address, xwing) == ()


def _local():  # type: ignore[no-untyped-def]
    from policies.compiling.identity import Scope

    return Scope.LOCAL
