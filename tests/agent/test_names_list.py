"""`deflector fqdn list`, as people read it."""

from __future__ import annotations

import pytest

from agent.cli.fqdn import print_names

SUMMARY = {"held": 1, "bound": 10, "refused": 0, "overheard": 0}


def test_a_name_is_whole_however_many_policies_stand_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a-rather-long-name.of-a-service.example.org."
    address = {"address": "2001:db8::1", "ttl_left": 30, "learned_by": ["default/a"], "connected": False}
    policies = [f"CiliumNetworkPolicy default/p-{number} spec.egress[0]" for number in range(40)]
    row = {"name": name, "addresses": [address], "selectors": ["*.example.org"], "policies": policies}
    print_names([row], {"summary": SUMMARY})
    heading, line, *_ = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["NAME", "ADDRESS"]
    assert line.split()[:2] == [name, "2001:db8::1"]
    assert policies[-1] in line
