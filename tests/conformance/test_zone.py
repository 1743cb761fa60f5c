"""A galaxy's names as a zone file: what nameservers are told."""

from __future__ import annotations

import dns.zone

from conformance.blueprint import DnsName, Host
from conformance.zone import zone_text

GITHUB = Host("github", "203.0.113.7", "2001:db8:113::7")


def test_an_independent_reader_finds_each_name_as_it_was_meant() -> None:
    names = (
        DnsName("api.github.com", hosts=("github",), ttl=30),
        DnsName("alias.io.", cname="api.github.com"),
        DnsName("many.io", more=3, records=('TXT "hello"',)),
    )
    zone = dns.zone.from_text(zone_text(names, [GITHUB], 7), origin=".", relativize=False)
    assert zone.find_rrset("api.github.com.", "A").to_text() == "api.github.com. 30 IN A 203.0.113.7"
    assert zone.find_rrset("api.github.com.", "AAAA")[0].to_text() == "2001:db8:113::7"
    assert zone.find_rrset("alias.io.", "CNAME")[0].to_text() == "api.github.com."
    assert [record.to_text() for record in zone.find_rrset("many.io.", "A")] == [
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
    ]
    assert zone.find_rrset("many.io.", "TXT")[0].to_text() == '"hello"'
    assert zone.find_rrset(".", "SOA")[0].serial == 7
