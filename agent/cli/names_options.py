"""The options of DNS and toFQDNs, given to a command as one NamesConfig; names are Cilium's where it has the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from agent.config import DNS_REJECTIONS, FQDN_SHARINGS, NamesConfig

_DEFAULT: Final = NamesConfig()
_DAY: Final = 86_400
_OPTIONS: Final = (
    click.option(
        "--tofqdns-dns-reject-response-code",
        "rejection",
        type=click.Choice(DNS_REJECTIONS),
        default=_DEFAULT.rejection,
        show_default=True,
        help="What a query is answered that policy denies: REFUSED, or (nameError) NXDOMAIN.",
    ),
    click.option(
        "--tofqdns-proxy-response-max-delay",
        "hold_limit",
        type=click.FloatRange(0.01, 8),
        default=_DEFAULT.hold_limit,
        show_default=True,
        help="Seconds that a DNS answer waits at the most until its addresses are in force.",
    ),
    click.option(
        "--dns-release-late",
        "release_late",
        is_flag=True,
        help="After that time release the answer, as Cilium does, though connections may fail. Else it is SERVFAIL.",
    ),
    click.option(
        "--tofqdns-min-ttl",
        "min_ttl",
        type=click.IntRange(0, _DAY * 365),
        default=_DEFAULT.min_ttl,
        show_default=True,
        help="Seconds that a learned address stays at least, whatever its TTL.",
    ),
    click.option(
        "--tofqdns-idle-connection-grace-period",
        "idle_grace",
        type=click.FloatRange(0, _DAY),
        default=_DEFAULT.idle_grace,
        show_default=True,
        help="Seconds that an expired address stays after its last connection.",
    ),
    click.option(
        "--fqdn-cname-targets",
        "targets",
        is_flag=True,
        help="toFQDNs select the targets of aliases as well: who answers for a name then answers for these.",
    ),
    click.option(
        "--fqdn-sharing",
        "sharing",
        type=click.Choice(FQDN_SHARINGS),
        default=_DEFAULT.sharing,
        show_default=True,
        help="To whom a learned address is open: all pods of the node whose policy selects the name, or who asked.",
    ),
)
_NAMES: Final = tuple(NamesConfig.__dataclass_fields__)


def names_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of names, given to the command as one `names`."""

    @wraps(command)
    def with_names(*words: Any, **options: Any) -> None:
        given = {name: options.pop(name) for name in _NAMES}
        command(*words, names=NamesConfig(**given), **options)

    made: Callable[..., None] = with_names
    for option in reversed(_OPTIONS):
        made = option(made)
    return made
