"""What a person can set, as one frozen value, and where a running node keeps its files. Reads nothing but arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # every command imports this module, few need those
    from flows.export.config import ExporterSpec
    from flows.export.otlp import OtlpSpec
    from flows.redact import Redaction
    from flows.rpc.tls import TlsFiles

DEFAULT_RUN_DIR = Path("/run/deflector")
DEFAULT_BPFFS = Path("/sys/fs/bpf")
DEFAULT_HUBBLE_ADDRESS = "127.0.0.1:4245"

# Values of the modes of policy; words of Cilium's agent (policies.compiling.enforcement knows what they do).
ENFORCEMENTS = ("default", "always", "never")
LOCALHOSTS = ("auto", "always", "policy")
KAFKA_ROLES = ("native", "cilium")  # policies.compiling.roles
IDENTITY_SOURCES = ("endpoints", "endpoint-slices", "pods")  # agent.cluster.queries knows what they are
DEFAULT_CLUSTER = "default"
CLUSTER_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,30}[a-z0-9])?")  # Cilium pkg/clustermesh/types, 32 characters

FQDN_ENFORCEMENTS = ("ip", "name", "both")  # policies.compiling.by_name
FQDN_SHARINGS = ("node", "endpoint")  # agent.names.book.Sharing
DNS_REJECTIONS = ("refused", "nameError")  # Cilium's words

# Unix socket paths are limited by the kernel (sockaddr_un.sun_path, 108 bytes with the closing NUL).
UNIX_PATH_MAX = 107


@dataclass(frozen=True, slots=True)
class ProxyFiles:
    """The files of a process of ours: dns-proxy, kafka-proxy."""

    root: Path
    name: str

    @property
    def pid(self) -> Path:
        return self.root / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        return self.root / f"{self.name}.log"

    @property
    def last_told(self) -> Path:
        return self.root / f"{self.name}.told"


@dataclass(frozen=True, slots=True)
class RunDir:
    """The files of a running node; docs/architecture.md lists them."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "agent.lock"

    @property
    def agent_socket(self) -> Path:
        return self.root / "agent.sock"

    @property
    def xds_socket(self) -> Path:
        return self.root / "xds.sock"

    @property
    def admin_socket(self) -> Path:
        return self.root / "admin.sock"

    @property
    def hubble_socket(self) -> Path:
        return self.root / "hubble.sock"

    @property
    def envoy_bootstrap(self) -> Path:
        return self.root / "envoy.json"

    @property
    def envoy_pid(self) -> Path:
        return self.root / "envoy.pid"

    @property
    def envoy_log(self) -> Path:
        return self.root / "envoy.log"

    def proxy(self, name: str) -> ProxyFiles:
        """Those of one of our own proxies."""
        return ProxyFiles(self.root, name)

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def names(self) -> Path:
        return self.root / "names.journal"

    def problem(self) -> str | None:
        """Why this folder cannot serve, or None."""
        sockets = (self.xds_socket, self.admin_socket, self.hubble_socket, self.agent_socket)
        longest = max(sockets, key=lambda path: len(str(path).encode()))
        if len(str(longest).encode()) > UNIX_PATH_MAX:
            return f"{longest} is longer than a Unix socket path may be ({UNIX_PATH_MAX} bytes): shorten --run-dir"
        return None


@dataclass(frozen=True, slots=True)
class Modes:
    """How policy is meant, whatever the policies say.

    `enforcement` and `localhost` are of ENFORCEMENTS and LOCALHOSTS, `kafka_roles` of KAFKA_ROLES; `kafka_hide_topics`:
    who asks for all topics hears of the allowed ones; `node_labels`: nodes can be told apart by labels;
    `identity_labels`: which labels of pods make their identity, in the words of policies.label_filter ("": the default
    ones); `fqdn_enforcement` is of FQDN_ENFORCEMENTS.
    """

    enforcement: str = ENFORCEMENTS[0]
    localhost: str = LOCALHOSTS[0]
    cluster: str = DEFAULT_CLUSTER
    node_labels: bool = False
    kafka_roles: str = KAFKA_ROLES[0]
    kafka_hide_topics: bool = True
    identity_labels: str = ""
    fqdn_enforcement: str = FQDN_ENFORCEMENTS[0]

    def problem(self) -> str | None:
        """Why these cannot be, or None."""
        if not CLUSTER_NAME.fullmatch(self.cluster):
            return f"{self.cluster!r} is no cluster name: up to 32 of a-z, 0-9 and -, and no - at either end"
        return None


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The API server that a node follows. `kubeconfig` None: $KUBECONFIG, the pod's own account, ~/.kube/config;
    `identity_source` is of IDENTITY_SOURCES."""

    kubeconfig: Path | None = None
    context: str = ""
    identity_source: str = IDENTITY_SOURCES[0]


@dataclass(frozen=True, slots=True)
class NamesConfig:
    """DNS and names of toFQDNs (docs/dns.md). Times in seconds; `rejection` is of DNS_REJECTIONS, `sharing` of
    FQDN_SHARINGS."""

    rejection: str = DNS_REJECTIONS[0]
    hold_limit: float = 1.0
    release_late: bool = False
    min_ttl: int = 0
    idle_grace: float = 0.0
    targets: bool = False
    sharing: str = FQDN_SHARINGS[0]


@dataclass(frozen=True, slots=True)
class ObservabilityConfig:
    """`metrics` is Hubble's one-line form; `exporter` is the one of the command line."""

    metrics_address: str = ""  # "": no page
    metrics: str = ""
    metrics_file: Path | None = None
    openmetrics: bool = False
    exporter: ExporterSpec | None = None
    exporters_file: Path | None = None
    otlp: OtlpSpec | None = None
    redaction: Redaction | None = None  # None: what flows.redact hides by default


@dataclass(frozen=True, slots=True)
class Config:
    """Configuration of `deflector run` and of `deflector agent`. Times in seconds.

    One of `manifests` and `cluster` is there. `own_proxies`: Envoy is started and ended by the agent; `stays`: when the
    agent is ended, what it enforces stays in force.
    """

    manifests: Path | None
    run_dir: RunDir
    bpffs: Path
    node_name: str
    modes: Modes = Modes()
    names: NamesConfig = NamesConfig()
    dns_workers: int = 1  # processes of the DNS proxy
    hubble_address: str = DEFAULT_HUBBLE_ADDRESS
    hubble_ring: int = 4095
    hubble_tls: TlsFiles | None = None  # of the TCP address; the Unix socket never speaks TLS
    observability: ObservabilityConfig = ObservabilityConfig()
    envoy: Path | None = None
    envoy_concurrency: int = 0  # 0: one worker per core
    proxy_ports: tuple[int, int] = (14000, 14999)
    quiet: float = 0.01  # a batch of edits ends after this much silence ...
    hold: float = 0.2  # ... or after this long, whatever comes
    ack_timeout: float = 5.0
    cluster: ClusterConfig | None = None
    own_proxies: bool = True
    stays: bool = False

    @property
    def source(self) -> str:
        """Where objects come from, in words."""
        return str(self.manifests) if self.manifests is not None else "the API server"

    @property
    def flow_node_name(self) -> str:
        """The node as flows name it: with its cluster, unless that is the default one (facts: Hubble 1.1)."""
        return self.name_in_flows(self.node_name)

    def name_in_flows(self, node: str) -> str:
        """The same of any node of the cluster."""
        return node if self.modes.cluster == DEFAULT_CLUSTER else f"{self.modes.cluster}/{node}"
