"""How long connections of a removed listener may live: told to the proxies, and waited for by agent.node.regenerate."""

from collections.abc import Mapping
from typing import Final

from policies.ir import L7Parser

DRAIN_SECONDS: Final = 600.0
# The DNS proxy ends connections with the answers that are due, before it says that a listener is gone.
REST_SECONDS: Final[Mapping[L7Parser, float]] = {
    L7Parser.HTTP: DRAIN_SECONDS,
    L7Parser.DNS: 0.0,
    L7Parser.KAFKA: DRAIN_SECONDS,
    L7Parser.TLS: DRAIN_SECONDS,
}
