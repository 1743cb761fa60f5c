"""`deflector policy explain`, `show` and `lint` as a person meets them: text, JSON, exit codes, errors of one line."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from agent.cli import commands
from agent.documents.policy_document import policy_document
from agent.documents.status import agent_handler, fetch_policy
from agent.errors import EnvironmentProblem
from agent.offline import read_offline
from tests.policies.make import manifest, peers, pod, policy, to_ports

LAND = {"method": "POST", "path": "/v1/request-landing"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    crew = (
        pod("deathstar", "10.0.0.1", **{"class": "deathstar"}, org="empire"),
        pod("tiefighter", "10.0.0.2", org="empire"),
        pod("xwing", "10.0.0.3", org="alliance"),
    )
    (tmp_path / "crew.yaml").write_text(manifest(*crew))
    clause = {"fromEndpoints": peers({"org": "empire"}), "toPorts": [to_ports("80", http=[LAND])]}
    (tmp_path / "rule1.yaml").write_text(manifest(policy("rule1", subject={"class": "deathstar"}, ingress=[clause])))
    return tmp_path


def deflector(*words: str) -> Result:
    return CliRunner().invoke(commands, ["policy", *words])


def explain(folder: Path, source: str, *more: str) -> Result:
    asked = ("--from", source, "--to", "default/deathstar", "--port", "80/TCP")
    return deflector("explain", "--manifests", str(folder), *asked, *more)


def test_allowed_is_zero_and_names_the_rule_and_its_line(folder: Path) -> None:
    done = explain(folder, "default/tiefighter", "--method", "POST", "--path", "/v1/request-landing")
    assert done.exit_code == 0, done.output
    assert "ALLOWED" in done.output
    assert "CiliumNetworkPolicy default/rule1 spec.ingress[0].toPorts[0].rules.http[0]  rule1.yaml:" in done.output


def test_denied_is_one_and_says_what_differs(folder: Path) -> None:
    done = explain(folder, "default/tiefighter", "--method", "PUT", "--path", "/v1/exhaust-port")
    assert done.exit_code == 1
    assert "none of 1 HTTP rule matches: 403" in done.output
    assert "method is PUT, not POST; path is /v1/exhaust-port, not /v1/request-landing" in done.output


def test_the_json_form(folder: Path) -> None:
    done = explain(folder, "default/xwing", "-o", "json")
    assert done.exit_code == 1
    plain = json.loads(done.stdout)
    assert plain["verdict"] == "DENIED"
    ingress = plain["ingress"]
    assert (ingress["verdict"], ingress["l7"]) == ("DENIED", None)
    assert ingress["differs"] == [{"field": "label org", "wanted": "empire", "got": "alliance"}]
    (by,) = ingress["by"]
    assert {name: by[name] for name in ("kind", "namespace", "name", "path")} == {
        "kind": "CiliumNetworkPolicy",
        "namespace": "default",
        "name": "rule1",
        "path": "spec",
    }


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--header", "nonsense"), "is not 'NAME: VALUE'"),
        (("--path", "a"), 'must begin with "/"'),
        (("--port", "http"), "is not NUMBER/PROTOCOL"),
        (("--port", "53/UDP", "--method", "GET"), "needs TCP"),
    ],
)
def test_a_question_that_makes_no_sense_is_a_usage_error(folder: Path, more: tuple[str, ...], complaint: str) -> None:
    done = explain(folder, "default/xwing", *more)
    assert done.exit_code == 2
    assert complaint in done.output


def test_somebody_unknown_is_told_in_one_line(folder: Path) -> None:
    done = explain(folder, "default/ywing")
    assert isinstance(done.exception, EnvironmentProblem)
    assert "'default/ywing' is no pod, address or entity" in str(done.exception)


def test_a_bad_file_is_complained_of_and_denied_as_a_node_would(folder: Path) -> None:
    (folder / "rule1.yaml").write_text((folder / "rule1.yaml").read_text().replace("method: POST", "method: '['"))
    done = explain(folder, "default/tiefighter")
    assert done.exit_code == 1
    assert "rule1.yaml:" in done.stderr
    assert "BadRegex" in done.stderr


def test_show_says_what_is_in_force(folder: Path) -> None:
    done = deflector("show", "default/deathstar", "--manifests", str(folder))
    assert done.exit_code == 0, done.output
    assert "80/TCP    proxy" in done.output
    assert "POST /v1/request-landing  CiliumNetworkPolicy default/rule1" in done.output
    plain = json.loads(deflector("show", "deathstar", "--manifests", str(folder), "-o", "json").stdout)
    ports = {(port["protocol"], port["ports"]) for port in plain["ingress"]["ports"]}
    assert ("TCP", "80") in ports
    assert plain["egress"] == {"enforced": False, "ports": []}


def test_show_of_nobody(folder: Path) -> None:
    done = deflector("show", "default/ywing", "--manifests", str(folder))
    assert isinstance(done.exception, EnvironmentProblem)
    assert "no running pod default/ywing" in str(done.exception)


async def test_a_running_node_answers_the_same(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    scene = read_offline(folder).scene
    server, socket = grpc.aio.server(), tmp_path_factory.mktemp("run") / "agent.sock"

    def of_pod(namespace: str, name: str) -> dict[str, object] | None:
        return policy_document(scene.node, scene.labels, namespace, name)

    async def usage() -> dict[str, object]:
        return {}

    server.add_generic_rpc_handlers((agent_handler(dict, of_pod, usage, usage),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        code = (
            "import json, sys; from pathlib import Path; from agent.documents.status import fetch_policy; "
            "print(json.dumps(fetch_policy(Path(sys.argv[1]), 'default', 'deathstar')))"
        )
        assert json.loads(await _run(code, str(socket))) == of_pod("default", "deathstar")
        assert "pod default/deathstar2 is not on this node" in await _run(code.replace("star'", "star2'"), str(socket))
    finally:
        await server.stop(None)


async def _run(code: str, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return out.decode()


def test_a_node_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="start one with 'deflector run'"):
        fetch_policy(tmp_path / "agent.sock", "default", "deathstar")


def test_lint_is_silent_about_a_good_folder_and_one_where_there_is_something(folder: Path) -> None:
    done = deflector("lint", str(folder))
    assert (done.exit_code, done.output.strip()) == (0, "nothing is said in vain")
    broad = policy("broad", subject={"class": "deathstar"}, ingress=[{"fromEndpoints": peers({"org": "empire"})}])
    (folder / "broad.yaml").write_text(manifest(broad))
    done = deflector("lint", str(folder))
    assert done.exit_code == 1
    assert "rule1.yaml:" in done.output
    (finding,) = json.loads(deflector("lint", str(folder), "-o", "json").stdout)
    assert (finding["file"], finding["name"], finding["reason"]) == ("rule1.yaml", "rule1", "L7Voided")
