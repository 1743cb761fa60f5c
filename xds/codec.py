"""HTTP codec options that hold on both sides of the proxy: nothing of a message's form is changed or limited.

Pure.
"""

from __future__ import annotations

from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.core.v3.protocol_pb2 import Http1ProtocolOptions
from envoy.extensions.http.header_formatters.preserve_case.v3.preserve_case_pb2 import PreserveCaseFormatterConfig

from xds.resources import pack

# Envoy's limits on heads (60 KiB, 100 headers) are not the servers': take the largest it offers.
MAX_HEADERS_KB = 8192
MAX_HEADERS = 10_000

# Envoy adds x-forwarded-proto where it is missing, and only there. The client's own is copied here before Envoy looks:
# rules judge the copy, and it is put back (or nothing is) when the request is forwarded.
FORWARDED_PROTO = "x-forwarded-proto"
KEPT_PROTO = "x-deflector-forwarded-proto"

# HTTP/1.0 allows a request without Host; Envoy wants one, and is given this name, which nobody can own (RFC 6761).
# No rule about hosts matches it, and the server is told the address that the client had connected to (xds.routes).
NO_HOST = "no-host.invalid"


def keep_http1_form(options: Http1ProtocolOptions) -> None:
    """Trailers pass; header names, and the reason phrase, stay as they came.

    Not `allow_custom_methods`: it is work in progress in Envoy 1.40, outside its threat model.
    """
    options.enable_trailers = True
    config = PreserveCaseFormatterConfig(forward_reason_phrase=True)
    formatter = TypedExtensionConfig(name="preserve_case", typed_config=pack(config))
    options.header_key_format.stateful_formatter.CopyFrom(formatter)
