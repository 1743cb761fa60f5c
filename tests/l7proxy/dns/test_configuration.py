"""What the proxy is told, and what of it makes no sense."""

from __future__ import annotations

import pytest

from l7proxy.dns.configuration import Configuration, ConfigurationError, Options
from policies.ir import Listening
from policies.types import Protocol
from tests.l7proxy.dns.make import slot


def test_a_slot_is_found_by_the_port_at_which_it_listens() -> None:
    over = slot("a"), slot("b", protocol=Protocol.TCP)
    told = Configuration(tuple(Listening(one, 15353) for one in over))
    assert told.places == {(Protocol.UDP, 15353): over[0], (Protocol.TCP, 15353): over[1]}


@pytest.mark.parametrize(
    ("listening", "options", "why"),
    [
        ((Listening(slot("a"), 1), Listening(slot("b"), 1)), Options(), "slot b: UDP port 1 is that of slot a"),
        ((Listening(slot("a", protocol=Protocol.SCTP), 1),), Options(), "slot a: .* not SCTP"),
        ((Listening(slot("a"), 0),), Options(), "slot a: 0 is not a port"),
        ((), Options(rejection="silence"), "rejection"),
        ((), Options(hold_limit=0), "limit"),
    ],
)
def test_what_makes_no_sense_is_refused(listening: tuple[Listening, ...], options: Options, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Configuration(listening, options)
