"""`deflector policy validate` as people and pipelines use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from policies.reading.manifests import TEXT_MAX

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {matchLabels: {org: empire}}
  ingress:
  - fromEndpoints: [{matchLabels: {org: empire}}]
    toPorts: [{ports: [{port: "80"%s}]}]
"""
GOOD = POLICY % ("good", "")
TRAP = POLICY % ("trap", ", endPort: 79")
BAD = POLICY % ("bad", ", protocol: ICMP")


def validate(*arguments: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command, as anybody may run it: it needs no root and no node."""
    return subprocess.run(
        [sys.executable, "-m", "agent", "policy", "validate", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_good_files_are_valid(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    done = validate("a.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 object, all valid\n", "")


def test_each_finding_is_one_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{GOOD}---{TRAP}---\na: [\n---{BAD}")
    done = validate("a.yaml", cwd=tmp_path)
    assert done.returncode == 1
    trap, syntax, bad, total = done.stdout.splitlines()
    assert trap == (
        "a.yaml:18: CiliumNetworkPolicy default/trap: spec.ingress[0].toPorts[0].ports[0].endPort: "
        "invalid port (InvalidPort): 79 is less than port 80: Envoy refuses the whole policy for it"
    )
    assert syntax.startswith("a.yaml:21: is not valid YAML (SyntaxError): ")
    assert bad.startswith("a.yaml:29: CiliumNetworkPolicy default/bad: ")
    assert total == "4 objects, 3 invalid"


def test_the_json_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{GOOD}---{TRAP}")
    done = validate("-o", "json", "a.yaml", cwd=tmp_path)
    good, trap = json.loads(done.stdout)
    assert good == {
        "file": "a.yaml",
        "document": 1,
        "kind": "CiliumNetworkPolicy",
        "namespace": "default",
        "name": "good",
        "valid": True,
        "errors": [],
        "warnings": [],
    }
    assert (trap["document"], trap["name"], trap["valid"]) == (2, "trap", False)
    (error,) = trap["errors"]
    assert error["path"] == "spec.ingress[0].toPorts[0].ports[0].endPort"
    assert (error["reason"], error["line"]) == ("InvalidPort", 18)
    assert done.returncode == 1


def test_compat_accepts_what_cilium_accepts_and_warns(tmp_path: Path) -> None:
    (tmp_path / "trap.yaml").write_text(TRAP)
    (tmp_path / "bad.yaml").write_text(BAD)
    done = validate("--compat", "cilium", "trap.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert "endPort: warning: invalid port (InvalidPort)" in done.stdout
    assert validate("--compat", "cilium", "bad.yaml", cwd=tmp_path).returncode == 1


def test_compat_refuses_what_only_cilium_refuses() -> None:
    text = GOOD.replace("fromEndpoints: [{matchLabels: {org: empire}}]", "fromEntities: [world-ipv4]")
    assert validate("-", stdin=text).returncode == 0
    done = validate("--compat", "cilium", "-o", "json", "-", stdin=text)
    assert [error["reason"] for error in json.loads(done.stdout)[0]["errors"]] == ["NotInSchema"]
    assert done.returncode == 1


def test_standard_input_and_folders_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.json").write_text(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}))
    (tmp_path / "notes.txt").write_text("a: [")
    done = validate(str(tmp_path), "-", stdin=GOOD.replace("good", "other"))
    assert (done.returncode, done.stdout) == (0, "3 objects, all valid\n")
    assert validate("-", stdin="").stdout == "no objects\n"


def test_a_list_is_taken_apart() -> None:
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": [{"kind": "Pod"}, {"kind": "Pod"}]})
    done = validate("-", stdin=items)
    assert done.stdout.splitlines()[-1] == "2 objects, 2 invalid"


def test_an_object_in_two_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD)
    done = validate(".", cwd=tmp_path)
    assert done.returncode == 0
    assert "b.yaml:2: CiliumNetworkPolicy default/good: warning: defined twice (DuplicateObject): also in a.yaml:2" in (
        done.stdout
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.yaml", None, "missing.yaml: no such file"),
        ("binary.yaml", b"\xff\xfe", "binary.yaml: is not UTF-8"),
        ("huge.yaml", b"#" * (TEXT_MAX + 1), "huge.yaml: is larger than 16 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_exit_code_2(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = validate(name, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"deflector: {words}")
    assert done.stderr.count("\n") == 1


def test_the_other_files_are_judged_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    done = validate("missing.yaml", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "1 object, 1 invalid" in done.stdout


def test_usage(tmp_path: Path) -> None:
    assert validate().returncode == 2
    assert validate(str(tmp_path)).returncode == 2
    done = validate("--help")
    assert done.returncode == 0
    assert "kubectl get" in done.stdout


NAMES = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names}
spec:
  endpointSelector: {}
  egress:
  - toFQDNs: [{matchName: api.github.com}]
    toPorts: [{ports: [{port: "443", protocol: TCP}]}]
"""
LOOKUPS = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: lookups}
spec:
  endpointSelector: {}
  egress:
  - toEntities: [cluster]
    toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchPattern: "*"}]}}]
"""


def test_names_of_which_nothing_is_learned_are_told_of_unless_another_file_has_dns_rules(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(NAMES)
    (tmp_path / "b.yaml").write_text(LOOKUPS)
    done = validate("a.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == (
        "a.yaml:8: CiliumNetworkPolicy default/names: spec.egress[0].toFQDNs: warning: selects nothing "
        "(SelectsNothing): no DNS rule in any of these files lets lookups be seen: no address is ever learned"
    )
    assert validate(".", cwd=tmp_path).stdout == "2 objects, all valid\n"
