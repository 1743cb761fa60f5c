"""A hand-written static Envoy in the shape of docs/architecture.md: one listener per slot, nothing from xds/.

It stands for the contract between the two: transparent wildcard listeners, SO_MARK on accepted sockets, original_src
with a mark upstream, the original destination handed over in filter state.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ENVOY = Path(__file__).resolve().parents[2] / ".venv/lib/python3.11/site-packages/envoy/_bin/envoy"
SOL_SOCKET, SO_MARK = 1, 36
TYPE = "type.googleapis.com/envoy.extensions.filters"


@dataclass(frozen=True)
class StaticSlot:
    name: str
    port: int
    direction: str
    allowed_path: str = "/allowed"

    @property
    def upstream_mark(self) -> int:
        return 0xA00 if self.direction == "ingress" else 0xB00

    @property
    def accepted_mark(self) -> int:
        return 0xC00 if self.direction == "ingress" else 0xD00


def _filters(slot: StaticSlot) -> list[dict[str, Any]]:
    permission = {"url_path": {"path": {"exact": slot.allowed_path}}}
    return [
        {
            "name": "original_destination",
            "typed_config": {
                "@type": f"{TYPE}.network.set_filter_state.v3.Config",
                "on_new_connection": [
                    {
                        "object_key": "envoy.network.transport_socket.original_dst_address",
                        "format_string": {"text_format_source": {"inline_string": "%DOWNSTREAM_LOCAL_ADDRESS%"}},
                        "shared_with_upstream": "ONCE",
                    }
                ],
            },
        },
        {
            "name": "http",
            "typed_config": {
                "@type": f"{TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": slot.name,
                "route_config": {
                    "virtual_hosts": [
                        {
                            "name": "all",
                            "domains": ["*"],
                            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "original", "timeout": "0s"}}],
                        }
                    ]
                },
                "http_filters": [
                    {
                        "name": "rbac",
                        "typed_config": {
                            "@type": f"{TYPE}.http.rbac.v3.RBAC",
                            "rules": {
                                "action": "ALLOW",
                                "policies": {"p": {"permissions": [permission], "principals": [{"any": True}]}},
                            },
                        },
                    },
                    {"name": "router", "typed_config": {"@type": f"{TYPE}.http.router.v3.Router"}},
                ],
            },
        },
    ]


def _listener(slot: StaticSlot) -> dict[str, Any]:
    return {
        "name": slot.name,
        "transparent": True,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": slot.port}},
        "additional_addresses": [{"address": {"socket_address": {"address": "::", "port_value": slot.port}}}],
        "socket_options": [
            {"level": SOL_SOCKET, "name": SO_MARK, "int_value": slot.accepted_mark, "state": "STATE_PREBIND"}
        ],
        "listener_filters": [
            {
                "name": "source",
                "typed_config": {
                    "@type": f"{TYPE}.listener.original_src.v3.OriginalSrc",
                    "mark": slot.upstream_mark,
                },
            }
        ],
        "filter_chains": [{"filters": _filters(slot)}],
    }


def static_config(slots: list[StaticSlot], admin: Path) -> str:
    return yaml.safe_dump(
        {
            "admin": {"address": {"pipe": {"path": str(admin)}}},
            "static_resources": {
                "listeners": [_listener(slot) for slot in slots],
                "clusters": [
                    {
                        "name": "original",
                        "type": "ORIGINAL_DST",
                        "lb_policy": "CLUSTER_PROVIDED",
                        "connect_timeout": "2s",
                        # no pooling: a direct upstream connection is reset when ingress policy begins to redirect it
                        "typed_extension_protocol_options": {
                            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                                "common_http_protocol_options": {"max_requests_per_connection": 1},
                                "explicit_http_config": {"http_protocol_options": {}},
                            }
                        },
                    }
                ],
            },
        }
    )
