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


@pytest.fixture
def streams(tmp_path: Path) -> Path:
    """The mediabot may ask for some names, and the fleet may announce."""
    crew = (
        pod("deathstar", "10.0.0.1", org="empire"),
        pod("tiefighter", "10.0.0.2", org="empire"),
        pod("xwing", "10.0.0.3", org="alliance"),
        pod("mediabot", "10.0.0.4", org="press"),
    )
    lookups = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*.github.com"}]}}
    topics = {"kafka": [{"role": "produce", "topic": "announce"}]}
    broker = {"ports": [{"port": "9092", "protocol": "TCP"}], "rules": topics}
    both = (
        policy("names", subject={"org": "press"}, egress=[{"toEntities": ["cluster"], "toPorts": [lookups]}]),
        policy("topics", subject={"org": "empire"}, ingress=[{"fromEntities": ["cluster"], "toPorts": [broker]}]),
    )
    (tmp_path / "all.yaml").write_text(manifest(*crew, *both))
    return tmp_path


def ask(folder: Path, source: str, port: str, *more: str) -> Result:
    target = "xwing" if port.startswith("53/") else "deathstar"
    asked = ("--from", source, "--to", target, "--port", port)
    return deflector("explain", "--manifests", str(folder), *asked, *more)


def test_names_are_asked_for(streams: Path) -> None:
    done = ask(streams, "mediabot", "53/UDP", "--dns", "api.GitHub.com")
    assert done.exit_code == 0, done.output
    assert "53/UDP, DNS api.GitHub.com" in done.output
    assert "a DNS rule allows it" in done.output
    assert "pattern *.github.com" in done.output
    done = ask(streams, "mediabot", "53/TCP", "--dns", "gitlab.com")
    assert done.exit_code == 1
    assert "none of 1 DNS rule allows it" in done.output
    assert "name is gitlab.com, not *.github.com" in done.output


def test_topics_are_asked_for(streams: Path) -> None:
    done = ask(streams, "tiefighter", "9092/TCP", "--kafka-topic", "announce")
    assert done.exit_code == 0, done.output
    assert "Kafka produce version 13 of announce" in done.output
    assert "role produce topic announce" in done.output
    done = ask(streams, "xwing", "9092/TCP", "--kafka-api", "fetch", "--kafka-topic", "plans", "-o", "json")
    assert done.exit_code == 1
    side = json.loads(done.stdout)["ingress"]
    assert (side["reason"], side["l7"]["parser"], side["l7"]["rules"]) == ("kafka", "kafka", 1)
    assert side["l7"]["nearest"]["kafka"] == {"role": "produce", "topic": "announce"}
    assert side["l7"]["differs"] == [
        {"field": "API", "wanted": "role produce", "got": "fetch"},
        {"field": "topic", "wanted": "announce", "got": "plans"},
    ]


def test_who_asks_for_all_topics_is_told_what_becomes_of_the_answer(streams: Path) -> None:
    asked = ("tiefighter", "9092/TCP", "--kafka-api", "metadata", "--kafka-topic", "*")
    done = ask(streams, *asked)
    assert done.exit_code == 0, done.output
    assert "Kafka metadata version 13 of all topics" in done.output
    assert "allowed, its answer filtered: it has the topics of 1 Kafka rule at most" in done.output
    assert json.loads(ask(streams, *asked, "-o", "json").stdout)["ingress"]["l7"]["answer"] == "filtered"
    assert "filtered" not in ask(streams, *asked, "--kafka-show-topics").output
    assert ask(streams, *asked[:2], "--kafka-topic", "*").exit_code == 1, "nobody can produce to all"
    assert "name no others beside it" in ask(streams, *asked, "--kafka-topic", "announce").output


def test_roles_are_those_of_the_node(streams: Path) -> None:
    asked = ("tiefighter", "9092/TCP", "--kafka-api", "initproducerid")
    assert ask(streams, *asked).exit_code == 0
    assert ask(streams, *asked, "--kafka-roles", "cilium").exit_code == 1


def test_what_is_not_of_the_protocol_does_not_pass(streams: Path) -> None:
    done = ask(streams, "tiefighter", "9092/TCP", "--path", "/")
    assert done.exit_code == 1
    assert "1 Kafka rule judges here: what is not Kafka does not pass" in done.output


def test_nothing_asked_is_told_how_to_ask(streams: Path) -> None:
    assert "judged by 1 DNS rule: ask with --dns" in ask(streams, "mediabot", "53/UDP").output
    assert "ask with --kafka-api and --kafka-topic" in ask(streams, "xwing", "9092/TCP").output


@pytest.mark.parametrize(
    ("port", "asked", "words"),
    [
        ("53/UDP", ("--dns", "a", "--path", "/"), "ask for one thing"),
        ("9092/UDP", ("--kafka-topic", "t"), "a Kafka request needs TCP, not UDP"),
        ("8/ICMP", ("--dns", "a"), "a DNS query needs TCP or UDP, not ICMP"),
        ("53/UDP", ("--dns", "a b"), "--dns"),
        ("9092/TCP", ("--kafka-api", "fetsch"), "'fetsch' is none of Kafka's APIs"),
    ],
)
def test_what_nobody_can_ask(streams: Path, port: str, asked: tuple[str, ...], words: str) -> None:
    done = ask(streams, "xwing", port, *asked)
    assert done.exit_code == 2
    assert words in done.output


def test_two_parsers_for_the_same_pods(streams: Path) -> None:
    clause = {"fromEndpoints": peers({"org": "empire"}), "toPorts": [to_ports("9092", http=[LAND])]}
    (streams / "http.yaml").write_text(manifest(policy("http", subject={"org": "empire"}, ingress=[clause])))
    done = ask(streams, "tiefighter", "9092/TCP")
    assert done.exit_code == 1
    assert "policies ask for different parsers here: denied until one of them is gone" in done.stdout
    assert "CiliumNetworkPolicy default/http spec.ingress[0]" in done.stdout
    assert "conflicting fields (ConflictingFields)" in done.stderr
    assert (
        ask(streams, "xwing", "9092/TCP", "--kafka-topic", "announce").exit_code == 0
    )  # whom only one of them chooses


def test_rules_of_any_parser_are_shown(streams: Path) -> None:
    done = deflector("show", "default/mediabot", "--manifests", str(streams))
    assert "pattern *.github.com" in done.output
    shown = json.loads(deflector("show", "default/deathstar", "--manifests", str(streams), "-o", "json").stdout)
    (judged,) = (peer for port in shown["ingress"]["ports"] for peer in port["peers"] if peer["verdict"] == "redirect")
    assert judged["parser"] == "kafka"
    assert judged["rules"][0]["kafka"] == {"role": "produce", "topic": "announce"}
