"""Identifiers are what uuid.UUID calls a random version 4."""

from __future__ import annotations

import itertools
import uuid

from flows.uuids import BATCH, uuids


def test_they_are_version_4_and_never_repeat() -> None:
    texts = [text.decode() for text in itertools.islice(uuids(), 3 * BATCH)]
    parsed = [uuid.UUID(text) for text in texts]
    assert [str(one) for one in parsed] == texts
    assert {(one.version, one.variant) for one in parsed} == {(4, uuid.RFC_4122)}
    assert len(set(texts)) == len(texts)
