"""The HTTP connection manager of a slot: a proxy that judges requests and otherwise leaves traffic as it is.

Pure. Law: policy does not change traffic it allows. Hence no timeouts, no retries, no headers of Envoy's, header case
and reason phrases kept, trailers and upgrades passed. What remains is listed in docs/xds.md.
"""

from __future__ import annotations

import re

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLogFilter, ExtensionFilter
from envoy.config.common.mutation_rules.v3.mutation_rules_pb2 import HeaderMutation
from envoy.config.core.v3.address_pb2 import CidrRange
from envoy.extensions.access_loggers.filters.cel.v3.cel_pb2 import ExpressionFilter
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    LocalReplyConfig,
    ResponseMapper,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from policies.ir import Slot
from xds import denial
from xds.access_log import OPEN_TICK_MS, access_logs
from xds.codec import FORWARDED_PROTO, KEPT_PROTO, MAX_HEADERS, MAX_HEADERS_KB, NO_HOST, keep_http1_form
from xds.filters import HTTP_FILTERS
from xds.options import Options
from xds.resources import pack
from xds.routes import copy_header, virtual_host

STAT_PREFIX = "deflector"

UPGRADES: tuple[str, ...] = ("websocket", "spdy/3.1")


def _other_than(words: tuple[str, ...]) -> str:
    """A regex for every text but these words, in any case; RE2 has no negative lookahead."""
    ways = []
    for begin in sorted({word[:length] for word in words for length in range(len(word))}):
        following = "".join(sorted({word[len(begin)] for word in words if word.startswith(begin)}))
        ways.append(f"{re.escape(begin)}(?:[^{re.escape(following)}].*)?")
    ways += [f"{re.escape(word)}.+" for word in words]
    return f"(?i){'|'.join(ways)}"


# Any other Upgrade would be answered 403; RFC 9110 7.8 lets a proxy ignore it, and the request goes on as HTTP/1.1.
IGNORED_UPGRADES = _other_than(UPGRADES)

# More hops than a header can name, so that the address of the connection is the client's.
NO_TRUSTED_HOPS = 1 << 31

# No address has this prefix: nobody is internal, and nobody's x-envoy-* headers have power over the proxy.
_NOBODY = CidrRange(address_prefix="255.255.255.255", prefix_len={"value": 32})


def connection_manager(slot: Slot, options: Options) -> HttpConnectionManager:
    """The connection manager of one slot."""
    manager = HttpConnectionManager(
        stat_prefix=STAT_PREFIX,
        codec_type=HttpConnectionManager.AUTO,
        http_filters=[make(slot, options) for make in HTTP_FILTERS],
        access_log=access_logs(options),
        local_reply_config=_local_replies(),
    )
    manager.access_log_options.access_log_flush_interval.FromMilliseconds(OPEN_TICK_MS)
    manager.route_config.name = slot.name
    manager.route_config.virtual_hosts.append(virtual_host(slot))
    _keep_headers(manager)
    _keep_protocol(manager)
    _no_timeouts(manager)
    _normalise_paths(manager)
    return manager


def _keep_headers(manager: HttpConnectionManager) -> None:
    """Neither x-request-id nor x-forwarded-for nor x-envoy-internal nor server, and the peer is the source.

    Envoy takes the n-th address of x-forwarded-for from the right for the client's, and logs it; there is none so far.
    """
    manager.server_header_transformation = HttpConnectionManager.PASS_THROUGH
    manager.generate_request_id.value = False
    manager.preserve_external_request_id = True
    manager.skip_xff_append = True
    manager.xff_num_trusted_hops = NO_TRUSTED_HOPS
    manager.internal_address_config.cidr_ranges.append(_NOBODY)
    manager.forward_client_cert_details = HttpConnectionManager.ALWAYS_FORWARD_ONLY
    keep = header_mutation_pb2.HeaderMutation(
        mutations=[HeaderMutation(remove=KEPT_PROTO), HeaderMutation(append=copy_header(FORWARDED_PROTO, KEPT_PROTO))]
    )
    manager.early_header_mutation_extensions.add(
        name="envoy.http.early_header_mutation.header_mutation", typed_config=pack(keep)
    )


def _keep_protocol(manager: HttpConnectionManager) -> None:
    http1 = manager.http_protocol_options
    http1.accept_http_10 = True
    http1.default_host_for_http_10 = NO_HOST
    keep_http1_form(http1)
    http1.ignore_http_11_upgrade.add().safe_regex.regex = IGNORED_UPGRADES
    manager.http2_protocol_options.allow_connect = True  # RFC 8441: WebSocket over HTTP/2
    # A malformed request ends its stream (RFC 9113 8.1.1), not those of others on the connection.
    manager.http2_protocol_options.override_stream_error_on_invalid_http_message.value = True
    manager.upgrade_configs.extend(HttpConnectionManager.UpgradeConfig(upgrade_type=upgrade) for upgrade in UPGRADES)
    manager.proxy_100_continue = True
    manager.max_request_headers_kb.value = MAX_HEADERS_KB
    manager.common_http_protocol_options.max_headers_count.value = MAX_HEADERS


def _no_timeouts(manager: HttpConnectionManager) -> None:
    """All of these have defaults that would end an idle connection or a slow stream; 0 is never."""
    manager.stream_idle_timeout.FromSeconds(0)
    manager.request_timeout.FromSeconds(0)
    manager.request_headers_timeout.FromSeconds(0)
    manager.common_http_protocol_options.idle_timeout.FromSeconds(0)


def _normalise_paths(manager: HttpConnectionManager) -> None:
    """As Cilium (facts: policy language 4.6), so that `/a/..//b` cannot pass for something else than `/b`."""
    manager.normalize_path.value = True
    manager.merge_slashes = True
    manager.path_with_escaped_slashes_action = HttpConnectionManager.UNESCAPE_AND_REDIRECT


def _local_replies() -> LocalReplyConfig:
    """The bodies of a denial and of a refused tunnel. Only of these: Envoy answers 403 for other reasons too."""
    denied = f"response.code_details.startsWith('{denial.DETAILS_PREFIX}')"
    tunnel = f"response.code_details == '{denial.NO_TUNNEL_DETAILS}'"
    return LocalReplyConfig(mappers=[_says(denied, denial.BODY), _says(tunnel, denial.NO_TUNNEL_BODY)])


def _says(expression: str, body: str) -> ResponseMapper:
    concerned = ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel", typed_config=pack(ExpressionFilter(expression=expression))
    )
    mapper = ResponseMapper(filter=AccessLogFilter(extension_filter=concerned))
    mapper.body.inline_string = body
    return mapper
