"""The listener of a TLS slot: connections pass untouched if the server that their ClientHello names is selected.

Pure. Nothing is decrypted. Each rule is a filter chain of its own, so that an edit leaves connections under other rules
alone, and those under a rule that is gone end with its chain, as the listener's drain time has it. Everything else (no
rule matches, no name, no TLS) goes to a chain whose cluster does not exist: Envoy closes before it has connected to
anybody, which a network RBAC filter would not (it judges with the first bytes, behind the filters that connect), and
logs the refusal.

Envoy compares server names in lower case. Who says nothing at all is closed when Envoy has waited for a ClientHello for
15 s (listener_filters_timeout). Where everything passes nobody waits for one: the server may be the first to speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.extensions.filters.common.set_filter_state.v3.value_pb2 import FilterStateValue
from envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2 import TlsInspector
from envoy.extensions.filters.network.set_filter_state.v3.set_filter_state_pb2 import Config as SetFilterState
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from envoy.extensions.matching.common_inputs.network.v3.network_inputs_pb2 import ServerNameInput

from policies.ir import Slot, SlotState, TlsRule
from policies.judging.server_names import literal_of, regex_of
from xds import denial
from xds.access_log import refusal_log
from xds.clusters import ORIGINAL_DESTINATION, cluster_keys
from xds.core.v3.extension_pb2 import TypedExtensionConfig
from xds.listeners import TEXT, chosen, only_redirected, original_destination, slot_named, state, transparent_listener
from xds.options import Options
from xds.resources import LISTENER, Resource, pack, resource
from xds.type.matcher.v3.matcher_pb2 import Matcher

ANYTHING: Final = "anything"  # the chain of what passes whatever it says
REFUSED: Final = "refused"
NOWHERE: Final = "deflector-nowhere"  # a cluster that nobody has


def tls_listener_resource(slot: Slot, port: int, options: Options) -> Resource:
    """The listener of a TLS slot on a proxy port."""
    listener = transparent_listener(slot, port, options)
    rules = slot.rule_set.tls if slot.state is not SlotState.RETIRED else ()
    if slot.state is SlotState.RETIRED:
        otherwise = REFUSED
    else:
        otherwise = ANYTHING if slot.rule_set.allows_all or slot.state is SlotState.DRAINED else REFUSED
    if otherwise is REFUSED:
        listener.listener_filters.add(name="envoy.filters.listener.tls_inspector", typed_config=pack(TlsInspector()))
        listener.filter_chains.append(_refused(slot, options))
    else:
        listener.filter_chains.append(_passed(slot, ANYTHING))
    listener.filter_chains.extend(_passed(slot, _name(rule)) for rule in rules)
    listener.filter_chain_matcher.CopyFrom(only_redirected(port, _choice(rules, otherwise)))
    return resource(LISTENER, listener, refers=cluster_keys())


def _name(rule: TlsRule) -> str:
    """Of its chain."""
    return f"pattern {rule.pattern}" if rule.pattern else f"name {rule.name}"


def _choice(rules: Sequence[TlsRule], otherwise: str) -> Matcher.OnMatch:
    """Names are looked up, patterns are tried one by one."""
    choice = chosen(otherwise)
    patterns = [rule for rule in rules if rule.pattern]
    if patterns:
        tried = Matcher.OnMatch()
        for rule in patterns:
            entry = tried.matcher.matcher_list.matchers.add()
            predicate = entry.predicate.single_predicate
            predicate.input.CopyFrom(_server_name())
            predicate.value_match.safe_regex.google_re2.SetInParent()
            predicate.value_match.safe_regex.regex = regex_of(rule)
            entry.on_match.CopyFrom(chosen(_name(rule)))
        tried.matcher.on_no_match.CopyFrom(choice)
        choice = tried
    named = {literal: rule for rule in rules if (literal := literal_of(rule))}
    if named:
        looked_up = Matcher.OnMatch()
        tree = looked_up.matcher.matcher_tree
        tree.input.CopyFrom(_server_name())
        for literal, rule in named.items():
            for written in (literal, literal + "."):
                tree.exact_match_map.map[written].CopyFrom(chosen(_name(rule)))
        looked_up.matcher.on_no_match.CopyFrom(choice)
        choice = looked_up
    return choice


def _server_name() -> TypedExtensionConfig:
    return TypedExtensionConfig(name="server-name", typed_config=pack(ServerNameInput()))


def _passed(slot: Slot, name: str) -> FilterChain:
    proxy = TcpProxy(stat_prefix=slot.name, cluster=ORIGINAL_DESTINATION)
    proxy.idle_timeout.FromSeconds(0)  # none: peers that vanish are found by TCP
    return _chain(name, [original_destination(), slot_named(slot)], proxy)


def _refused(slot: Slot, options: Options) -> FilterChain:
    name = state(denial.SERVER_NAME_FILTER_STATE, "%REQUESTED_SERVER_NAME%", factory=TEXT)
    name.format_string.omit_empty_values = True
    name.skip_if_empty = True
    by = denial.RETIRED if slot.state is SlotState.RETIRED else denial.DENY
    proxy = TcpProxy(stat_prefix=slot.name, cluster=NOWHERE, access_log=[refusal_log(options)])
    return _chain(REFUSED, [slot_named(slot), state(denial.REFUSED_FILTER_STATE, by, factory=TEXT), name], proxy)


def _chain(name: str, states: Sequence[FilterStateValue], proxy: TcpProxy) -> FilterChain:
    stated = SetFilterState(on_new_connection=states)
    return FilterChain(
        name=name,
        filters=[
            Filter(name="envoy.filters.network.set_filter_state", typed_config=pack(stated)),
            Filter(name="envoy.filters.network.tcp_proxy", typed_config=pack(proxy)),
        ],
    )
