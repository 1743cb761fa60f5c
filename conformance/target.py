"""Who is asked, and at which port. Pure."""

from __future__ import annotations

from dataclasses import dataclass

TARGET_KINDS = ("pod", "service", "host", "node", "world", "proxy")
NAMED_KINDS = ("pod", "service", "host")


@dataclass(frozen=True, slots=True)
class Target:
    """`pod/ALIAS`, `service/NAME`, `host/NAME`, `node`, `world`, or `proxy` (each of the node's proxy ports)."""

    kind: str
    name: str = ""
    port: int = 80

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}".rstrip("/") + ("" if self.port == 80 else f":{self.port}")
