"""Fixtures of the operator's stories."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.operator.town import Town, a_town


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    """On the fake server, or on the real one that KUBECONFIG names."""
    async with a_town(bookmark_seconds=0.5) as made:
        yield made
