"""A failing example as text that can be pasted: the manifests, and the question about them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from policies.judging.requests import Request
from tests.policies.make import manifest


def example(objects: Iterable[Mapping[str, Any]], source: str, target: str, port: str, request: Request | None) -> str:
    """For the message of an assertion."""
    words = ["deflector", "policy", "explain", "--manifests", "example", "--from", source, "--to", target]
    words += ["--port", port]
    if request is not None:
        words += ["--method", request.method, "--path", request.path, "--host", request.host]
        words += [word for name, value in request.headers for word in ("--header", f"{name}: {value}")]
    text = manifest(*objects)
    return f"\nmkdir -p example && cat > example/all.yaml <<'EOF'\n{text}EOF\n{shlex.join(words)}\n"
