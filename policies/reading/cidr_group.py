"""CiliumCIDRGroup (cilium.io/v2 and v2alpha1): raw object -> prefixes by name. Pure."""

from __future__ import annotations

import re
from typing import Final

from policies.errors import Reason
from policies.objects import CidrGroup
from policies.reading.cidr_text import parse_prefix
from policies.reading.crd import read_metadata
from policies.reading.fields import ROOT, Findings, Raw, Schema, sequence, strings, submap
from policies.reading.sanitize import Refused

CIDRS_MAX: Final = 20_000  # per group, as for the peers of a policy (crd_scope.LIMITS)
_OBJECT: Final = Schema.of("apiVersion", "kind", "metadata", "spec", "status")
_SPEC: Final = Schema.of("externalCIDRs")
# The usual entry, whose prefix needs no further look but for its value.
_IPV4: Final = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})/(\d|[12]\d|3[0-2])")


def read_cidr_group(raw: Raw, findings: Findings) -> CidrGroup:
    """The group; of no use after errors."""
    _OBJECT.check(raw, ROOT, findings)
    metadata = submap(raw, "metadata", ROOT, findings)
    read_metadata(metadata, findings)
    labels = strings(submap(metadata, "labels", ROOT / "metadata", Findings()), ROOT, Findings())
    where = ROOT / "spec"
    spec = submap(raw, "spec", ROOT, findings)
    _SPEC.check(spec, where, findings)
    where /= "externalCIDRs"
    if spec.get("externalCIDRs") is None:
        findings.add(where, Reason.MISSING, "say which prefixes: [] is none")
        return CidrGroup(findings.name, labels)
    written = sequence(spec["externalCIDRs"], where, findings) or ()
    if len(written) > CIDRS_MAX:
        findings.ours(where, Reason.TOO_MANY, f"{len(written)} prefixes, the most is {CIDRS_MAX}")
        return CidrGroup(findings.name, labels)
    prefixes = set()
    for i, item in enumerate(written):
        if not isinstance(item, str):
            findings.add(where[i], Reason.WRONG_TYPE, "must be a string ADDRESS/LENGTH")
            continue
        try:
            prefix = _canonical(item)
        except Refused as refused:
            findings.add(where[i], refused.reason, refused.message)
            continue
        prefixes.add(prefix)
        if prefix != item and _has_host_bits(item):
            findings.warn(where[i], Reason.REWRITTEN, f"{item} means {prefix}")
    return CidrGroup(findings.name, labels, tuple(sorted(prefixes)))


def _canonical(written: str) -> str:
    found = _IPV4.fullmatch(written)
    if found is not None:
        *octets, length = map(int, found.groups())
        value = octets[0] << 24 | octets[1] << 16 | octets[2] << 8 | octets[3]
        plain = f"{octets[0]}.{octets[1]}.{octets[2]}.{octets[3]}/{length}"
        if plain == written and max(octets) < 256 and not value << length & 0xFFFFFFFF:
            return written
    return str(parse_prefix(written))


def _has_host_bits(written: str) -> bool:
    return parse_prefix(written).has_host_bits
