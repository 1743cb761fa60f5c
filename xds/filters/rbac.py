"""The RBAC filter: the slot's verdict, delivered by ECDS so that an edit replaces it under live connections.

The listener carries only the subscription and a deny-all that holds until the first delivery: Envoy keeps a listener
warming for its filter 15 s at most, then opens it with the default (and without one it would answer 500, or wait).
"""

from __future__ import annotations

from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter

from policies.ir import Slot, SlotState
from xds import denial
from xds.header_actions import CHAIN_TYPE, followed_by_actions
from xds.options import Options
from xds.rbac_tree import compile_tree, constant_tree
from xds.resources import FILTER, TYPE_PREFIX, Key, Resource, pack, resource

RBAC_TYPE = TYPE_PREFIX + RBAC.DESCRIPTOR.full_name


def http_filter(slot: Slot, _: Options) -> HttpFilter:
    """The entry in the connection manager: where to get the filter, and what holds before it is there."""
    entry = HttpFilter(name=slot.name)
    discovery = entry.config_discovery
    discovery.config_source.ads.SetInParent()
    discovery.config_source.resource_api_version = ApiVersion.V3
    discovery.default_config.CopyFrom(pack(RBAC(matcher=constant_tree(denial.UNDELIVERED, allow=False))))
    discovery.type_urls.extend((RBAC_TYPE, CHAIN_TYPE))
    return entry


def filter_key(slot: Slot) -> Key:
    """The key of the slot's filter resource; Envoy asks for it by the name of the entry."""
    return Key(FILTER, slot.name)


def filter_resource(slot: Slot) -> Resource:
    """The slot's verdict as a resource, and behind it the header actions of its rules where they have any.

    One resource, so that an edit changes both for the same request, and who has no actions pays for none.
    Raises patterns.PatternError or ValueError for a rule that cannot be said.
    """
    verdict = rbac_config(slot)
    chain = followed_by_actions(verdict, slot.rule_set.http) if slot.state is SlotState.ACTIVE else None
    return resource(FILTER, TypedExtensionConfig(name=slot.name, typed_config=pack(chain or verdict)))


def rbac_config(slot: Slot) -> RBAC:
    """RETIRED denies; it cannot also close connections from here, the listener's removal does (docs/xds.md)."""
    match slot.state:
        case SlotState.RETIRED:
            return RBAC(matcher=constant_tree(denial.RETIRED, allow=False))
        case SlotState.DRAINED:
            return RBAC(matcher=constant_tree(denial.DRAINED, allow=True))
        case SlotState.ACTIVE:
            return RBAC(matcher=compile_tree(slot.rule_set).matcher)
