"""What a node tells machines, as options of `deflector run`: names, forms and defaults are those of Cilium's agent."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.headings import under
from agent.config import DEFAULT_HUBBLE_ADDRESS, ObservabilityConfig

if TYPE_CHECKING:
    from flows.export.config import ExporterSpec
    from flows.export.otlp import OtlpSpec
    from flows.redact import Redaction
    from flows.rpc.tls import TlsFiles

FILE = click.Path(path_type=Path, dir_okay=False)
HEADINGS = ("Hubble API", "What flows do not show", "Metrics", "Flows to files and collectors")
api, redact, metrics, export = map(under, HEADINGS)
# As Cilium's switches are written: --name, --name=false.
SWITCH: Mapping[str, Any] = {"type": bool, "is_flag": False, "flag_value": True, "show_default": True}


@dataclass(frozen=True, slots=True)
class HubbleOptions:
    """The options as the configuration wants them."""

    address: str
    ring: int
    tls: TlsFiles | None
    observability: ObservabilityConfig


OPTIONS = (
    api(
        "--hubble-address",
        "--hubble-listen-address",
        "hubble_address",
        default=DEFAULT_HUBBLE_ADDRESS,
        show_default=True,
        help="TCP address of the Hubble API, beside its Unix socket.",
    ),
    api(
        "--hubble-event-buffer-capacity", default=4095, show_default=True, help="Flows that are held: 2^k-1, to 65535."
    ),
    api(
        "--hubble-tls-cert-file", type=FILE, help="Certificate of the TCP address, for TLS; read anew when it changes."
    ),
    api("--hubble-tls-key-file", type=FILE, help="Its key."),
    api(
        "--hubble-tls-client-ca-files",
        multiple=True,
        help="Let in only clients with a certificate of these authorities; separated by commas, or given repeatedly.",
    ),
    api("--hubble-disable-tls", is_flag=True, help="No TLS, also where others than this machine may connect."),
    redact("--hubble-redact-enabled", is_flag=True, help="Show no header's value but of those allowed below."),
    redact("--hubble-redact-http-urlquery", default=True, **SWITCH, help="Show URLs without query and fragment."),
    redact("--hubble-redact-http-userinfo", default=True, **SWITCH, help="Show URLs without user and password."),
    redact(
        "--hubble-redact-http-headers-allow",
        multiple=True,
        metavar="NAMES",
        help="Show these headers, also where they carry credentials; separated by commas, or given repeatedly.",
    ),
    redact("--hubble-redact-http-headers-deny", multiple=True, metavar="NAMES", help="Do not show these headers."),
    redact("--hubble-redact-kafka-apikey", default=False, **SWITCH, help="Do not show what Kafka is asked to do."),
    metrics("--hubble-metrics-server", default="", metavar="ADDRESS", help="Serve /metrics here, e.g. :9965.  [off]"),
    metrics(
        "--hubble-metrics",
        multiple=True,
        metavar="NAME[:OPTION[=VALUE];...]",
        help="Metrics of flows: dns, drop, tcp, flow, port-distribution, icmp, http or httpV2, kafka, flows-to-world, "
        "policy; separated by spaces, or given repeatedly. Options: docs/metrics.md.",
    ),
    metrics(
        "--hubble-dynamic-metrics-config-path",
        type=FILE,
        help="YAML file with the metrics instead; watched for changes.",
    ),
    metrics("--enable-hubble-open-metrics", is_flag=True, help="Exemplars and OpenMetrics' form, to those who ask."),
    export("--hubble-export-file-path", default="", metavar="PATH|stdout", help="Write flows as lines of JSON.  [off]"),
    export("--hubble-export-file-max-size-mb", type=click.IntRange(1), default=10, show_default=True),
    export("--hubble-export-file-max-backups", type=click.IntRange(0), default=5, show_default=True),
    export("--hubble-export-file-compress", is_flag=True, help="Compress rotated files."),
    export(
        "--hubble-export-allowlist",
        multiple=True,
        metavar="FILTERS",
        help="Only flows that one of these chooses: JSON flow filters, separated by spaces. Of the collector too.",
    ),
    export("--hubble-export-denylist", multiple=True, metavar="FILTERS", help="No flows that one of these chooses."),
    export("--hubble-export-fieldmask", multiple=True, metavar="PATHS", help="Only these fields, e.g. time,verdict."),
    export("--hubble-export-fieldaggregate", multiple=True, metavar="PATHS", help="Count flows by these fields ..."),
    export(
        "--hubble-export-aggregation-interval",
        default="0s",
        metavar="DURATION",
        help="... and write the counts so often.",
    ),
    export("--hubble-flowlogs-config-path", type=FILE, help="YAML file with more exporters; watched for changes."),
    export("--hubble-export-otlp-endpoint", default="", metavar="HOST:PORT", help="Send flows as OTLP logs, by gRPC."),
    export("--hubble-export-otlp-insecure", is_flag=True, help="Without TLS."),
    export("--hubble-export-otlp-ca-file", type=FILE, help="Authority of the collector.  [default: the machine's]"),
    export("--hubble-export-otlp-cert-file", type=FILE, help="Certificate to show to the collector."),
    export("--hubble-export-otlp-key-file", type=FILE, help="Its key."),
)


def hubble_options(command: Callable[..., None]) -> Callable[..., None]:
    """Declare all of them; the command gets `hubble`, of type HubbleOptions."""

    @functools.wraps(command)
    def with_hubble(**given: Any) -> None:
        own = {name: given.pop(name) for name in list(given) if name.startswith(("hubble_", "enable_hubble_"))}
        command(hubble=_read(own), **given)

    made: Any = with_hubble
    for option in reversed(OPTIONS):
        made = option(made)
    return made  # type: ignore[no-any-return]


def _read(given: Mapping[str, Any]) -> HubbleOptions:
    ring = given["hubble_event_buffer_capacity"]
    if not 1 <= ring <= 65535 or ring & (ring + 1):
        raise click.UsageError(f"--hubble-event-buffer-capacity {ring} is not 2^k-1 up to 65535, for example 4095")
    tls = _tls(given)
    address = given["hubble_address"]
    if tls is None and not given["hubble_disable_tls"] and not _is_own(address):
        raise click.UsageError(
            f"--hubble-address {address} is reached by others: give --hubble-tls-cert-file and --hubble-tls-key-file, "
            "or --hubble-disable-tls"
        )
    wanted = " ".join(given["hubble_metrics"])
    page = given["hubble_metrics_server"]
    if not page and (wanted or given["hubble_dynamic_metrics_config_path"] or given["enable_hubble_open_metrics"]):
        raise click.UsageError("metrics are configured, but not where to serve them: --hubble-metrics-server :9965")
    observability = ObservabilityConfig(
        metrics_address=page,
        metrics=wanted,
        metrics_file=given["hubble_dynamic_metrics_config_path"],
        openmetrics=given["enable_hubble_open_metrics"],
        exporter=_exporter(given),
        exporters_file=given["hubble_flowlogs_config_path"],
        otlp=_otlp(given),
        redaction=_redaction(given),
    )
    return HubbleOptions(address, ring, tls, observability)


def _redaction(given: Mapping[str, Any]) -> Redaction:
    from flows.redact import Redaction, header_names

    return Redaction(
        everything=given["hubble_redact_enabled"],
        url_query=given["hubble_redact_http_urlquery"],
        user_info=given["hubble_redact_http_userinfo"],
        allow=header_names(given["hubble_redact_http_headers_allow"]),
        deny=header_names(given["hubble_redact_http_headers_deny"]),
        kafka_api_key=given["hubble_redact_kafka_apikey"],
    )


def _tls(given: Mapping[str, Any]) -> TlsFiles | None:
    certificate, key = given["hubble_tls_cert_file"], given["hubble_tls_key_file"]
    authorities = _words(given["hubble_tls_client_ca_files"])
    if given["hubble_disable_tls"]:
        return None
    if (certificate is None) != (key is None):
        raise click.UsageError("--hubble-tls-cert-file and --hubble-tls-key-file go together")
    if certificate is None:
        if authorities:
            raise click.UsageError(
                "--hubble-tls-client-ca-files needs --hubble-tls-cert-file and --hubble-tls-key-file"
            )
        return None
    from flows.rpc.tls import TlsFiles

    return TlsFiles(certificate, key, tuple(Path(word) for word in authorities))


def _is_own(address: str) -> bool:
    """Whether only this machine can connect there."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


FILE_ONLY = ("fieldmask", "fieldaggregate")


def _exporter(given: Mapping[str, Any]) -> ExporterSpec | None:
    path = given["hubble_export_file_path"]
    if not path:
        for name in FILE_ONLY:
            if given[f"hubble_export_{name}"]:
                raise click.UsageError(f"--hubble-export-{name} needs --hubble-export-file-path")
        return None
    from flows.export.config import ExportConfigError, FileSpec, static

    file = FileSpec(
        path,
        given["hubble_export_file_max_size_mb"] << 20,
        given["hubble_export_file_max_backups"],
        given["hubble_export_file_compress"],
    )
    try:
        return static(
            file,
            allow=" ".join(given["hubble_export_allowlist"]),
            deny=" ".join(given["hubble_export_denylist"]),
            mask=" ".join(given["hubble_export_fieldmask"]),
            aggregate=" ".join(given["hubble_export_fieldaggregate"]),
            interval=given["hubble_export_aggregation_interval"],
        )
    except ExportConfigError as error:
        raise click.UsageError(f"--hubble-export-...: {error}") from None


def _otlp(given: Mapping[str, Any]) -> OtlpSpec | None:
    endpoint = given["hubble_export_otlp_endpoint"]
    files = {name: given[f"hubble_export_otlp_{name}_file"] for name in ("ca", "cert", "key")}
    if not endpoint:
        if any(files.values()) or given["hubble_export_otlp_insecure"]:
            raise click.UsageError("--hubble-export-otlp-... needs --hubble-export-otlp-endpoint")
        return None
    if not re.fullmatch(r"unix:\S+|\S+:\d+", endpoint):
        raise click.UsageError(f"--hubble-export-otlp-endpoint {endpoint} is no HOST:PORT, e.g. localhost:4317")
    if (files["cert"] is None) != (files["key"] is None):
        raise click.UsageError("--hubble-export-otlp-cert-file and --hubble-export-otlp-key-file go together")
    from flows.export.config import ExportConfigError, FileSpec, static
    from flows.export.otlp import OtlpSpec

    try:
        filters = static(
            FileSpec(""),
            allow=" ".join(given["hubble_export_allowlist"]),
            deny=" ".join(given["hubble_export_denylist"]),
        )
    except ExportConfigError as error:
        raise click.UsageError(f"--hubble-export-...: {error}") from None
    insecure = given["hubble_export_otlp_insecure"]
    return OtlpSpec(endpoint, insecure, files["ca"], files["cert"], files["key"], filters.include, filters.exclude)


def _words(given: Iterable[str]) -> list[str]:
    return [word for text in given for word in re.split(r"[\s,]+", text) if word]
