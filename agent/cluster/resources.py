"""Kinds of objects that an API server has, and their addresses there. Pure data.

A group or a version that moves is one row here. Whoever reads or writes an object names its Resource, never a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind in one version. `plural` is its name in addresses; `group` is "" for the core group."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As an object's apiVersion says it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Where the object is; without a name, the collection (of one namespace, or of all)."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(quote(part, safe=":") for part in parts)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


CILIUM: Final = "cilium.io"

NAMESPACES: Final = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
NODES: Final = Resource("", "v1", "Node", "nodes", namespaced=False)
PODS: Final = Resource("", "v1", "Pod", "pods")
SECRETS: Final = Resource("", "v1", "Secret", "secrets")
SERVICES: Final = Resource("", "v1", "Service", "services")
EVENTS: Final = Resource("events.k8s.io", "v1", "Event", "events")
DAEMON_SETS: Final = Resource("apps", "v1", "DaemonSet", "daemonsets")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
NETWORK_POLICIES: Final = Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
LEASES: Final = Resource("coordination.k8s.io", "v1", "Lease", "leases")
CRDS: Final = Resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
WEBHOOKS: Final = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
    namespaced=False,
)
DEFLECTOR_NODES: Final = Resource("deflector.io", "v1alpha1", "DeflectorNode", "deflectornodes", namespaced=False)
CILIUM_POLICIES: Final = Resource(CILIUM, "v2", "CiliumNetworkPolicy", "ciliumnetworkpolicies")
CILIUM_CLUSTER_POLICIES: Final = Resource(
    CILIUM, "v2", "CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies", namespaced=False
)
CILIUM_CIDR_GROUPS: Final = Resource(CILIUM, "v2", "CiliumCIDRGroup", "ciliumcidrgroups", namespaced=False)
CILIUM_CIDR_GROUPS_ALPHA: Final = Resource(CILIUM, "v2alpha1", "CiliumCIDRGroup", "ciliumcidrgroups", namespaced=False)
CILIUM_IDENTITIES: Final = Resource(CILIUM, "v2", "CiliumIdentity", "ciliumidentities", namespaced=False)
CILIUM_ENDPOINTS: Final = Resource(CILIUM, "v2", "CiliumEndpoint", "ciliumendpoints")
CILIUM_ENDPOINT_SLICES: Final = Resource(
    CILIUM, "v2alpha1", "CiliumEndpointSlice", "ciliumendpointslices", namespaced=False
)
CILIUM_NODES: Final = Resource(CILIUM, "v2", "CiliumNode", "ciliumnodes", namespaced=False)
