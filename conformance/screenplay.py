"""The Star Wars story as data: chapters, policies, commands, and what must come of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

HOST = "deathstar.default.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class Move:
    """One command in a ship and what must come of it: text in its output, and one flow line for each pattern."""

    ship: str
    curl: str
    output: str
    claim: str
    flows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chapter:
    """A policy (a file of examples/, or none) and the moves under it."""

    title: str
    text: str
    policy: str
    moves: tuple[Move, ...]


LAND = f"curl -s -XPOST {HOST}/v1/request-landing"
LAND_IN_VAIN = f"curl -sS --connect-timeout 1 -XPOST {HOST}/v1/request-landing"
EXPLODE = f"curl -s -XPUT {HOST}/v1/exhaust-port"

ARRIVES = r"default/{ship}:\d+ .*-> default/deathstar-\S+:80 .* to-endpoint FORWARDED \(TCP Flags: SYN\)"
ALLOWED = r"default/tiefighter:\d+ .* default/deathstar-\S+:80 .* policy-verdict:\S+ INGRESS ALLOWED"


def unhindered(ship: str, curl: str, output: str, claim: str) -> Move:
    """No policy holds: the packets arrive, and nobody judges."""
    return Move(ship, curl, output, claim, (ARRIVES.format(ship=ship),))


XWING_DROPPED = Move(
    "xwing",
    LAND_IN_VAIN,
    "curl: (28)",
    "the xwing times out: its packets are dropped",
    (r"default/xwing:\d+ .* default/deathstar-\S+:80 .* Policy denied DROPPED \(TCP Flags: SYN\)",),
)

STORY = (
    Chapter(
        "No policy",
        "Every ship may land on the deathstar, and anybody may use the exhaust port.",
        "",
        (
            unhindered("tiefighter", LAND, "Ship landed", "the tiefighter lands"),
            unhindered("xwing", LAND, "Ship landed", "so does the xwing"),
            unhindered("tiefighter", EXPLODE, "deathstar exploded", "and the exhaust port explodes"),
        ),
    ),
    Chapter(
        "rule1: who may come",
        "Only ships of the empire may reach the deathstar, and only on port 80/TCP.",
        "rule1-l4.yaml",
        (
            Move("tiefighter", LAND, "Ship landed", "the tiefighter lands", (ALLOWED,)),
            XWING_DROPPED,
            Move(
                "tiefighter",
                EXPLODE,
                "deathstar exploded",
                "but a friend can still blow it up: ports are not enough",
                (ALLOWED,),
            ),
        ),
    ),
    Chapter(
        "rule1 with HTTP: what they may do",
        "Ships of the empire may ask for a landing. Nothing else.",
        "rule1-http.yaml",
        (
            Move(
                "tiefighter",
                LAND,
                "Ship landed",
                "the tiefighter lands",
                (
                    r"default/tiefighter:\d+ .*-> default/deathstar-\S+:80 .* http-request FORWARDED",
                    r"default/tiefighter:\d+ .*<- default/deathstar-\S+:80 .* http-response FORWARDED \(HTTP/1.1 200 ",
                ),
            ),
            Move(
                "tiefighter",
                EXPLODE,
                "Access denied",
                "the exhaust port is out of reach: 403",
                (
                    r"default/tiefighter:\d+ .*-> default/deathstar-\S+:80 .* http-request DROPPED",
                    r"default/tiefighter:\d+ .*<- default/deathstar-\S+:80 .* http-response FORWARDED \(HTTP/1.1 403 ",
                ),
            ),
            XWING_DROPPED,
        ),
    ),
    Chapter(
        "Clean-up",
        "The policy goes, and everything is as it was.",
        "",
        (unhindered("xwing", LAND, "Ship landed", "the xwing lands again"),),
    ),
)
