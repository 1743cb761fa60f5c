"""The repository: what is in force after good, bad, half-written and contradictory files."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.errors import Reason
from policies.objects import PodKey
from policies.reading.manifests import FileEvent
from policies.repository import Repository
from tests.policies.make import manifest, pod, policy, to_ports


def rule(name: str, port: str = "80", **fields: Any) -> dict[str, Any]:
    return policy(name, subject={"org": "empire"}, ingress=[{"toPorts": [to_ports(port)], **fields}])


BAD = {"fromEntities": ["word"]}


def in_force(repository: Repository) -> dict[str, str]:
    """Policy name -> the port that it opens; "denied" for a stand-in."""
    return {
        key.name: str(found.rules[0].ingress[0].to_ports[0].ports[0].ports) if found.valid else "denied"
        for key, found in repository.world().policies.items()
    }


def reasons(repository: Repository) -> list[str]:
    return [error.reason for error in repository.problems]


def test_objects_come_change_and_go() -> None:
    repository = Repository()
    assert repository.replace("a.yaml", manifest(rule("r"), pod("p", "10.0.0.1"))).changed
    assert not repository.replace("a.yaml", manifest(rule("r"), pod("p", "10.0.0.1"))).changed
    assert list(repository.world().pods) == [PodKey("default", "p")]
    assert repository.replace("a.yaml", manifest(rule("r", "81"))).changed
    assert (in_force(repository), len(repository.world().pods)) == ({"r": "81"}, 0)
    assert repository.remove("a.yaml").changed
    assert in_force(repository) == {}
    assert not repository.remove("a.yaml").changed


def test_kinds_that_did_not_change_are_the_same_mapping() -> None:
    repository = Repository()
    repository.replace("pods.yaml", manifest(pod("p", "10.0.0.1")))
    before = repository.world()
    repository.replace("r.yaml", manifest(rule("r")))
    after = repository.world()
    assert after.pods is before.pods
    assert after.policies is not before.policies


def test_comments_and_lines_that_move_change_nothing() -> None:
    repository = Repository()
    repository.replace("a.yaml", manifest(rule("r"), rule("s")))
    change = repository.replace("a.yaml", "# hello\n\n---\n" + manifest(rule("r"), rule("s")))
    assert (change.changed, change.errors) == (False, ())


def test_a_syntax_error_keeps_everything() -> None:
    repository = Repository()
    repository.replace("a.yaml", manifest(rule("r"), rule("s")))
    change = repository.replace("a.yaml", manifest(rule("r", "81")) + "---\na: [\n")
    assert (change.changed, in_force(repository)) == (False, {"r": "80", "s": "80"})
    assert reasons(repository) == [Reason.SYNTAX]
    repository.replace("a.yaml", manifest(rule("r", "81")))
    assert (in_force(repository), reasons(repository)) == ({"r": "81"}, [])


def test_a_bad_object_keeps_its_last_good_version_and_the_others_go_on() -> None:
    repository = Repository()
    repository.replace("a.yaml", manifest(rule("r"), rule("s")))
    change = repository.replace("a.yaml", manifest(rule("r", "81"), rule("s", "81", **BAD)))
    assert (change.changed, in_force(repository)) == (True, {"r": "81", "s": "80"})
    (error,) = change.errors
    assert (error.name, error.path, error.source) == ("s", "spec.ingress[0].fromEntities[0]", "a.yaml")
    assert error.line == manifest(rule("r", "81"), rule("s", "81", **BAD)).splitlines().index("    - word") + 1


def test_a_policy_that_was_never_good_denies_whom_it_selects_until_it_is() -> None:
    repository = Repository()
    repository.replace("a.yaml", manifest(rule("r", **BAD)))
    assert in_force(repository) == {"r": "denied"}
    repository.replace("a.yaml", manifest(rule("r")))
    assert in_force(repository) == {"r": "80"}
    repository.replace("a.yaml", manifest(rule("r", **BAD)))
    assert in_force(repository) == {"r": "80"}
    repository.replace("b.yaml", manifest(rule("Not_A_Name")))
    assert in_force(repository) == {"Not_A_Name": "denied", "r": "80"}


def broken_pod(name: str, ip: str, **fields: Any) -> dict[str, Any]:
    made = pod(name, ip, org="empire")
    return {**made, **{part: {**made.get(part, {}), **more} for part, more in fields.items()}}


def test_a_pod_that_was_never_good_is_known_by_what_can_be_read_of_it() -> None:
    """Else it would be no pod of this node, and open."""
    repository = Repository()
    repository.replace("a.yaml", manifest(broken_pod("p", "10.0.0.1", spec={"hostNetwork": "perhaps"})))
    assert reasons(repository) == [Reason.WRONG_TYPE]
    (found,) = repository.world().pods.values()
    assert (found.addresses, found.labels, found.host_network) == (("10.0.0.1",), {"org": "empire"}, False)
    repository.replace("a.yaml", manifest(broken_pod("p", "10.0.0.2", spec={"hostNetwork": "perhaps"})))
    (found,) = repository.world().pods.values()
    assert found.addresses == ("10.0.0.2",), "what stands in is no last good version"
    repository.replace("a.yaml", manifest(pod("p", "10.0.0.2", org="alliance")))
    repository.replace("a.yaml", manifest(broken_pod("p", "10.0.0.2", spec={"hostNetwork": "perhaps"})))
    (found,) = repository.world().pods.values()
    assert found.labels == {"org": "alliance"}, "but this is one"


@pytest.mark.parametrize(
    "fields",
    [{"metadata": {"name": "P!"}}, {"status": {"podIP": 7, "podIPs": 7}}],
)
def test_of_a_pod_without_name_or_address_nothing_is_made_up(fields: dict[str, Any]) -> None:
    repository = Repository()
    repository.replace("a.yaml", manifest(broken_pod("p", "10.0.0.1", **fields)))
    assert repository.problems
    assert not repository.world().pods


def test_a_misspelt_kind_or_name_does_not_take_the_policy_out_of_force() -> None:
    repository = Repository()
    repository.replace("a.yaml", manifest(rule("r"), rule("s")))
    for wrong in ({"kind": "CiliumNetworkPolicyy"}, {"metadata": {"nam": "r"}}, {"apiVersion": "v1"}):
        repository.replace("a.yaml", manifest(rule("r") | wrong, rule("s")))
        assert in_force(repository) == {"r": "80", "s": "80"}
        repository.replace("a.yaml", manifest(rule("r") | wrong, rule("s", "82")))
        assert in_force(repository) == {"r": "80", "s": "82"}
        repository.replace("a.yaml", manifest(rule("r"), rule("s")))
    repository.replace("a.yaml", manifest(rule("s")))
    assert in_force(repository) == {"s": "80"}


def test_a_stranger_in_the_file_does_not_keep_what_is_deleted() -> None:
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}
    repository = Repository()
    repository.replace("a.yaml", manifest(deployment, rule("r"), rule("s")))
    repository.replace("a.yaml", manifest(deployment, rule("s")))
    assert (in_force(repository), reasons(repository)) == ({"s": "80"}, [Reason.UNKNOWN_KIND])


def test_an_object_in_two_files_is_an_error_that_names_both() -> None:
    repository = Repository()
    repository.replace("b.yaml", manifest(rule("r")))
    change = repository.replace("a.yaml", manifest(rule("q"), rule("r", "81")))
    assert in_force(repository) == {"q": "80", "r": "80"}
    (error,) = change.errors
    assert (error.reason, error.source) == (Reason.DUPLICATE, "a.yaml")
    assert "also in b.yaml:1, which stays in force" in str(error)
    assert repository.remove("b.yaml").changed
    assert (in_force(repository), repository.problems) == ({"q": "80", "r": "81"}, ())


def test_an_error_in_a_list_names_the_line_of_the_field() -> None:
    pod_text = "- apiVersion: v1\n  kind: Pod\n  metadata: {name: p}\n  status:\n    podIP: x\n"
    text = f"apiVersion: v1\nkind: List\nitems:\n{pod_text}"
    (error,) = Repository().replace("a.yaml", text).errors
    assert (error.path, error.line) == ("status.podIP", 8)


def test_an_object_twice_in_a_file_is_an_error() -> None:
    repository = Repository()
    change = repository.replace("a.yaml", manifest(rule("r"), rule("r", "81")))
    assert in_force(repository) == {"r": "80"}
    assert [error.reason for error in change.errors] == [Reason.DUPLICATE]


def test_an_unreadable_file_changes_nothing_but_is_a_problem() -> None:
    repository = Repository()
    repository.apply(FileEvent("a.yaml", manifest(rule("r"))))
    change = repository.apply(FileEvent("a.yaml", None, "permission denied"))
    assert (change.changed, in_force(repository)) == (False, {"r": "80"})
    assert str(change.errors[0]) == "a.yaml: cannot be read (Unreadable): permission denied"
    assert not repository.apply(FileEvent("a.yaml", manifest(rule("r")))).errors
    assert repository.apply(FileEvent("a.yaml", None)).changed


def test_an_object_may_move_between_files() -> None:
    repository = Repository()
    repository.replace("a.yaml", manifest(rule("r")))
    repository.remove("a.yaml")
    repository.replace("b.yaml", manifest(rule("r")))
    assert (in_force(repository), repository.problems) == ({"r": "80"}, ())


_good = st.builds(lambda name, port: manifest(rule(name, port)), st.sampled_from("rst"), st.sampled_from(["80", "81"]))
STRANGERS = ("a: [\n", "kind: X\n", "5\n")
_bad = st.sampled_from([manifest(rule("r", **BAD)), manifest(rule("s", "81", **BAD))])
_documents = st.lists(_good | _bad | st.sampled_from(STRANGERS), max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.none() | _documents), max_size=8))
def test_what_is_in_force_leaves_only_with_its_file_or_by_an_edit_that_adds_nothing_strange(
    steps: list[tuple[str, list[str] | None]],
) -> None:
    repository = Repository()
    texts: dict[str, list[str]] = {}
    for file, documents in steps:
        before = in_force(repository)
        if documents is None:
            repository.remove(file)
        else:
            change = repository.replace(file, "---\n".join(documents))
            is_lost = any(before[name] != "denied" and name not in in_force(repository) for name in before)
            strange = {document for document in documents if document in STRANGERS} - set(texts.get(file, ()))
            assert not (is_lost and strange)
            assert change.changed == (before != in_force(repository))
        texts[file] = documents or []
