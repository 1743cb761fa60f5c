"""Prefixes as they are written -> networks, as Go's netip reads them. Pure.

Python's ipaddress takes more than that (netmasks, padded lengths, numbers), so what is written is looked at first.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

from policies.errors import Reason
from policies.reading.sanitize import Refused

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PREFIX: Final = re.compile(r"(?P<address>[0-9A-Fa-f:.]{2,45})/(?P<length>0|[1-9][0-9]{0,2})")
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}")


class Cidr(NamedTuple):
    """A prefix: `network` masked, `address` as written."""

    network: Network
    address: ipaddress.IPv4Address | ipaddress.IPv6Address

    @property
    def has_host_bits(self) -> bool:
        return self.address != self.network.network_address

    def __str__(self) -> str:
        return str(self.network)


def parse_prefix(written: str) -> Cidr:
    """ADDRESS/LENGTH. Raises Refused."""
    found = _PREFIX.fullmatch(written)
    if found is not None:
        try:
            address = ipaddress.ip_address(found["address"])
            return Cidr(ipaddress.ip_network((address, int(found["length"])), strict=False), address)
        except ValueError:
            pass
    hint = f": write {written}/{'128' if ':' in written else '32'}" if _ADDRESS.fullmatch(written) else ""
    raise Refused(Reason.BAD_CIDR, f'"{written}" is no prefix ADDRESS/LENGTH{hint}', True)


def parse_address_or_prefix(written: str) -> Cidr:
    """ADDRESS/LENGTH, or an address, which stands for itself alone (fromCIDR and toCIDR take both, facts 1.4)."""
    if "/" in written or not _ADDRESS.fullmatch(written):
        return parse_prefix(written)
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        raise Refused(Reason.BAD_CIDR, f'"{written}" is no IP address', True) from None
    return Cidr(ipaddress.ip_network(address), address)
