"""Labels: where they come from, how their keys are written, which of them make an identity. Pure.

A label is written `source:key=value`. A selector's key without a source is `any:key` (facts: Cilium pkg/labels).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

K8S: Final = "k8s"
RESERVED: Final = "reserved"
ANY: Final = "any"
CIDR: Final = "cidr"  # of identities of prefixes: the prefix itself
CIDR_GROUP: Final = "cidrgroup"  # ... and the labels of the groups that hold it
NODE: Final = "node"  # labels of Node objects
FQDN: Final = "fqdn"  # of identities of learned addresses: the selectors that one of their names has

NAMESPACE_KEY: Final = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS_PREFIX: Final = "io.cilium.k8s.namespace.labels."
CLUSTER_KEY: Final = "io.cilium.k8s.policy.cluster"
SERVICE_ACCOUNT_KEY: Final = "io.cilium.k8s.policy.serviceaccount"
API_SERVER_LABEL: Final = f"{RESERVED}:kube-apiserver"
GROUP_NAME_PREFIX: Final = "io.cilium.policy.cidrgroupname/"  # + the name of the CiliumCIDRGroup

# Keys of pods that make no identity: replicas must share one (Cilium pkg/labelsfilter, default prefixes).
_IRRELEVANT: Final = re.compile(
    r"io\.kubernetes|kubernetes\.io|.*beta\.kubernetes\.io|k8s\.io"
    r"|statefulset\.kubernetes\.io/pod-name|apps\.kubernetes\.io/pod-index"
    r"|batch\.kubernetes\.io/job-completion-index|batch\.kubernetes\.io/controller-uid|controller-uid"
    r"|pod-template-generation|pod-template-hash|controller-revision-hash|annotation|etcd_node"
)
# Nobody can give a pod another namespace, cluster or service account by labelling it.
_OURS: Final = "io.cilium.k8s."


class Label(NamedTuple):
    """One label, taken apart."""

    source: str
    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.source}:{self.key}={self.value}" if self.value else f"{self.source}:{self.key}"


def parse_label(text: str) -> Label:
    """Take `source:key=value` apart; a missing source is "any", a missing value ""."""
    name, _, value = text.partition("=")
    source, colon, key = name.partition(":")
    return Label(source, key, value) if colon else Label(ANY, name, value)


def canonical_key(text: str) -> str:
    """`app` -> `any:app`; `k8s:app` stays. The first colon ends the source."""
    return text if ":" in text else f"{ANY}:{text}"


def cidr_key(prefix: str) -> str:
    """The key of a prefix's label: `cidr:10.0.0.0/8`, and `cidr:fd00--0/8`, for a key has one colon (facts 2.6)."""
    address, slash, length = prefix.partition("/")
    written = address.replace(":", "-")
    written = ("0" if written.startswith("-") else "") + written + ("0" if written.endswith("-") else "")
    return f"{CIDR}:{written}{slash}{length}"


def prefix_of(key: str) -> str:
    """The prefix that a `cidr:` key is for."""
    return key.partition(":")[2].replace("-", ":")


def fqdn_key(selector: str) -> str:
    """The key of a toFQDNs selector's label, from its name or pattern in canonical form: `fqdn:*.x.io` for `*.x.io.`,
    as Cilium writes it; `fqdn:.` for the root."""
    return f"{FQDN}:{selector.removesuffix('.') or '.'}"


def is_of_names(label: str) -> bool:
    """Whether a label, or key, is about the names of an address."""
    return label.startswith(f"{FQDN}:")


def is_identity_relevant(key: str) -> bool:
    """Whether a pod's label of this key is part of its identity."""
    return not key.startswith(_OURS) and _IRRELEVANT.match(key) is None


def _may_identify(key: str, keeps: Callable[[str], bool] | None) -> bool:
    return is_identity_relevant(key) if keeps is None else not key.startswith(_OURS)


def identity_labels(
    pod_labels: Mapping[str, str],
    *,
    namespace: str,
    namespace_labels: Mapping[str, str],
    service_account: str = "default",
    cluster: str = "default",
    keeps: Callable[[str], bool] | None = None,
) -> tuple[str, ...]:
    """The labels that make the identity of a pod, written and sorted. `keeps`: by key, if not as by default."""
    labels = {key: value for key, value in pod_labels.items() if _may_identify(key, keeps)}
    labels |= {f"{NAMESPACE_LABELS_PREFIX}{key}": value for key, value in namespace_labels.items()}
    labels |= {NAMESPACE_KEY: namespace, CLUSTER_KEY: cluster, SERVICE_ACCOUNT_KEY: service_account or "default"}
    if keeps is not None:
        labels = {key: value for key, value in labels.items() if keeps(key)}
    return tuple(sorted(str(Label(K8S, key, value)) for key, value in labels.items()))
