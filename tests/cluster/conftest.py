"""Fixtures of the tests about the API server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.cluster.stage import Cluster, a_cluster


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """The fake, or the real one that KUBECONFIG names."""
    async with a_cluster(bookmark_seconds=0.2) as made:
        yield made
