"""Credential plugins of a kubeconfig (users[].user.exec): a command that prints a token. Runs processes.

The API is client.authentication.k8s.io/v1 and v1beta1. Only tokens are taken; a plugin that answers with a client
certificate is refused with a sentence, as nothing here could renew it in an open connection.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from agent.errors import EnvironmentProblem

PLUGIN_SECONDS: Final = 30.0
EARLY_SECONDS: Final = 60.0  # before it ends, a token is replaced
_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


@dataclass(slots=True)
class ExecPlugin:
    """Satisfies agent.cluster.credentials.Identity by asking a command."""

    command: tuple[str, ...]
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cluster: Mapping[str, Any] | None = None
    hint: str = ""
    _header: str = ""
    _until: float = 0.0

    @classmethod
    def of(cls, raw: Mapping[str, Any], folder: Path, server: str) -> ExecPlugin:
        """What a kubeconfig in that folder says. Raises EnvironmentProblem."""
        version, command = raw.get("apiVersion"), raw.get("command")
        if version not in _VERSIONS or not isinstance(command, str) or not command:
            raise EnvironmentProblem(f"users[].user.exec needs a command and one of apiVersion {', '.join(_VERSIONS)}")
        path = str(folder / command) if os.sep in command else command
        variables = {str(v.get("name")): str(v.get("value")) for v in raw.get("env") or [] if isinstance(v, dict)}
        cluster = {"server": server} if raw.get("provideClusterInfo") else None
        words = (path, *map(str, raw.get("args") or []))
        return cls(words, str(version), variables, cluster, str(raw.get("installHint") or ""))

    def authorization(self) -> str:
        if not self._header or time.time() >= self._until:
            self._ask()
        return self._header

    def refused(self) -> None:
        self._header = ""

    def _ask(self) -> None:
        spec: dict[str, Any] = {"interactive": False}
        if self.cluster is not None:
            spec["cluster"] = self.cluster
        asked = json.dumps({"apiVersion": self.version, "kind": "ExecCredential", "spec": spec})
        variables = {**os.environ, **self.environment, "KUBERNETES_EXEC_INFO": asked}
        try:
            done = subprocess.run(
                self.command, env=variables, capture_output=True, timeout=PLUGIN_SECONDS, check=True, text=True
            )
            status = json.loads(done.stdout)["status"]
            token, ends = status["token"], status.get("expirationTimestamp")
            self._until = datetime.fromisoformat(ends).timestamp() - EARLY_SECONDS if ends else float("inf")
        except FileNotFoundError:
            raise EnvironmentProblem(
                f"credential plugin {self.command[0]} is not installed. {self.hint}".strip()
            ) from None
        except (OSError, subprocess.SubprocessError) as error:
            raise EnvironmentProblem(f"credential plugin {self.command[0]} failed: {_words(error)}") from None
        except (ValueError, KeyError, TypeError):
            raise EnvironmentProblem(
                f"credential plugin {self.command[0]} printed no ExecCredential with a token"
            ) from None
        self._header = f"Bearer {token}"


def _words(error: Exception) -> str:
    said = getattr(error, "stderr", None)
    return " ".join(str(said or error).split())
