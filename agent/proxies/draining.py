"""How long connections of a removed listener may live: told to the proxies, and waited for by agent.node.regenerate."""

from typing import Final

DRAIN_SECONDS: Final = 600.0
