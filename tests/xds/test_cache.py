"""What is served after refusals: last good, once, under a fresh version; and nothing that was refused twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xds.worlds import CDS, LDS, filters, listeners, table, thing
from xds.cache import InconsistentError, SnapshotCache
from xds.resources import FILTER, LISTENER, Key, Resource, ResourceTable, TranslationError

A, B = Key(LDS, "a"), Key(LDS, "b")


def served(cache: SnapshotCache) -> dict[str, str]:
    """Name -> content of what is served."""
    assert cache.snapshot is not None
    return {name: r.body.decode().partition("=")[2] for rs in cache.snapshot.by_type.values() for name, r in rs.items()}


def versions(cache: SnapshotCache, *keys: Key) -> dict[Key, str]:
    return {key: version for key, version in cache.served_versions(keys).items() if version is not None}


def accept(cache: SnapshotCache, *keys: Key) -> None:
    cache.accepted(versions(cache, *keys))


def test_nothing_is_served_before_the_first_publish() -> None:
    assert SnapshotCache().snapshot is None


def test_equal_content_is_an_equal_version_whoever_made_it() -> None:
    one, other = SnapshotCache(), SnapshotCache()
    one.publish(table(*listeners(a="1")))
    other.publish(table(*listeners(a="1")))
    assert one.snapshot == other.snapshot


def test_who_starts_with_another_epoch_has_other_versions() -> None:
    one, other = SnapshotCache(epoch=1), SnapshotCache(epoch=2)
    one.publish(table(*listeners(a="1")))
    other.publish(table(*listeners(a="1")))
    assert one.snapshot != other.snapshot


def test_a_refused_edit_goes_back_to_its_last_good_form_under_a_fresh_version() -> None:
    cache = SnapshotCache()
    cache.publish(table(*listeners(a="good")))
    before = versions(cache, A)
    accept(cache, A)
    cache.publish(table(*listeners(a="bad")))
    assert cache.rejected(versions(cache, A), "Error adding listener a: no") == {A}
    assert served(cache) == {"a": "good"}
    assert versions(cache, A) != before
    assert cache.rejections[A].message == "Error adding listener a: no"


def test_a_refused_newcomer_is_left_out() -> None:
    cache = SnapshotCache()
    cache.publish(table(*listeners(a="bad", b="1")))
    cache.rejected(versions(cache, A, B), "a: no")
    assert served(cache) == {"b": "1"}


def test_the_others_of_a_refused_response_are_told_again() -> None:
    cache = SnapshotCache()
    cache.publish(table(*listeners(a="bad", b="1")))
    before = versions(cache, B)
    cache.rejected(versions(cache, A, B), "a: no")
    assert versions(cache, B) != before
    assert B not in cache.rejections


def test_who_is_not_named_is_suspected_with_all_others() -> None:
    cache = SnapshotCache()
    cache.publish(table(*listeners(a="1", b="1")))
    assert cache.rejected(versions(cache, A, B), "something is wrong") == {A, B}
    assert served(cache) == {}


def test_a_last_good_form_that_is_refused_as_well_is_left_out() -> None:
    cache = SnapshotCache()
    cache.publish(table(*listeners(a="good")))
    accept(cache, A)
    cache.publish(table(*listeners(a="bad")))
    cache.rejected(versions(cache, A), "no")
    cache.rejected(versions(cache, A), "no")
    assert served(cache) == {}


def test_publishing_the_refused_content_again_changes_nothing() -> None:
    cache = SnapshotCache()
    cache.publish(table(*listeners(a="good")))
    accept(cache, A)
    cache.publish(table(*listeners(a="bad")))
    cache.rejected(versions(cache, A), "no")
    mended = cache.snapshot
    assert cache.publish(table(*listeners(a="bad"))) == mended
    assert A in cache.rejections


def test_changed_content_is_served_and_the_refusal_forgotten() -> None:
    cache = SnapshotCache()
    cache.publish(table(*listeners(a="bad")))
    cache.rejected(versions(cache, A), "no")
    cache.publish(table(*listeners(a="better")))
    assert served(cache) == {"a": "better"}
    assert cache.rejections == {}


def test_a_refusal_of_what_has_been_replaced_meanwhile_is_old_news() -> None:
    cache = SnapshotCache()
    cache.publish(table(*listeners(a="bad")))
    old = versions(cache, A)
    cache.publish(table(*listeners(a="better")))
    assert cache.rejected(old, "a: no") == frozenset()
    assert served(cache) == {"a": "better"}


def test_a_slot_that_cannot_be_translated_keeps_what_was_published() -> None:
    cache = SnapshotCache()
    cache.publish(table(*listeners(a="1"), *filters(a="1")))
    errors = (TranslationError("a", "bad rule"),)
    cache.publish(ResourceTable(tuple(listeners(b="1")), errors))
    assert cache.snapshot is not None
    assert sorted(cache.snapshot.of_type(LISTENER)) == ["a", "b"]
    assert sorted(cache.snapshot.of_type(FILTER)) == ["a"]


def test_an_inconsistent_table_is_refused_and_the_old_world_stays() -> None:
    cache = SnapshotCache()
    before = cache.publish(table(*listeners(a="1")))
    dangling = Resource(A, b"", "x", refers=(Key(CDS, "nowhere"),))
    with pytest.raises(InconsistentError, match="a: refers to nowhere"):
        cache.publish(table(dangling))
    assert cache.snapshot == before


def test_watchers_hear_of_each_world_until_they_have_enough() -> None:
    cache, heard = SnapshotCache(), []
    leave = cache.watch(heard.append)
    cache.publish(table(thing(CDS, "c")))
    leave()
    cache.publish(table(thing(CDS, "d")))
    assert len(heard) == 1


@given(st.lists(st.sampled_from(["named", "unnamed", "accept"]), max_size=30))
@settings(max_examples=200, deadline=None)
def test_refusals_come_to_an_end(answers: list[str]) -> None:
    """Whatever the proxy answers, each refusal of the newest world brings a world with less in doubt."""
    cache = SnapshotCache()
    cache.publish(table(*listeners(a="1", b="1")))
    accept(cache, A, B)
    cache.publish(table(*listeners(a="2", b="2")))
    refusals = 0
    for answer in answers:
        if answer == "accept":
            accept(cache, A, B)
            continue
        if not versions(cache, A, B):
            break
        cache.rejected(versions(cache, A, B), "a: no" if answer == "named" and A in versions(cache, A) else "no")
        refusals += 1
    assert refusals <= 4
