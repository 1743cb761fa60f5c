"""A resolver on c-ares, for pods: asks one question, prints what came of it in one line, and ends.

python -m conformance.cares SERVER PORT NAME TYPE SECONDS
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import pycares

# c-ares's codes (ares.h), where they say what the server has said
RCODES = {1: "NOERROR", 2: "FORMERR", 3: "SERVFAIL", 4: "NXDOMAIN", 5: "NOTIMP", 6: "REFUSED", 12: "TIMEOUT"}


def main(server: str, port: str, name: str, qtype: str, seconds: str) -> None:
    """Ask. c-ares takes a port for all servers, and no IPv6 address in brackets."""
    done = threading.Event()

    def answered(result: Any, error: int | None) -> None:
        addresses = (
            [str(record.data.addr) for record in result.answer if hasattr(record.data, "addr")] if result else []
        )
        print(RCODES.get(error, "FAILED") if error else "NOERROR", *addresses, flush=True)
        done.set()

    number = int(port)
    channel = pycares.Channel(servers=[server], udp_port=number, tcp_port=number, timeout=float(seconds), tries=1)
    channel.query(name, getattr(pycares, f"QUERY_TYPE_{qtype}"), callback=answered)
    done.wait(2 * float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
