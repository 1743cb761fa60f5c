"""agent.node.regenerate.Proxies by ADS: each proxy is told the slots of its parser, and answers for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final

from agent.node.regenerate import Patience, Programmed
from policies.ir import L7Parser, NodePolicy
from xds.acks import AckResult
from xds.consumer import Consumer
from xds.l7 import DNS_OPTIONS_NAME, KAFKA_OPTIONS_NAME
from xds.resources import DNS_OPTIONS, FILTER, KAFKA_OPTIONS, LISTENER, Key
from xds.translator import Options, Translator, told_with

GATHER_SECONDS: Final = 0.02  # between a late answer and the look at all of them

# What carries a slot's name and must be accepted before the kernel may send anything there.
_OF_A_SLOT: Final[Mapping[L7Parser, tuple[str, ...]]] = {
    L7Parser.HTTP: (LISTENER, FILTER),
    L7Parser.DNS: (LISTENER,),
    L7Parser.KAFKA: (LISTENER,),
    L7Parser.TLS: (LISTENER,),
}
# What all slots of the parser depend on.
_OF_ALL_SLOTS: Final[Mapping[L7Parser, Key]] = {
    L7Parser.DNS: Key(DNS_OPTIONS, DNS_OPTIONS_NAME),
    L7Parser.KAFKA: Key(KAFKA_OPTIONS, KAFKA_OPTIONS_NAME),
}

Owed = Mapping[str, Collection[str]]  # names by type


class AdsProxies:
    """`consumers` by what they judge; a proxy that judges by two parsers is one consumer. `on_progress` is called when
    a late answer has come; `need` with the parsers whose proxies have something to judge, before they are waited
    for."""

    def __init__(
        self,
        consumers: Mapping[L7Parser, Consumer],
        options: Options,
        on_progress: Callable[[], None],
        need: Callable[[Collection[L7Parser]], None],
    ) -> None:
        self._consumers = consumers
        self._translators = {parser: Translator(options, parser) for parser in consumers if told_with(parser) is parser}
        self._on_progress = on_progress
        self._need = need
        self._owed: dict[L7Parser, Owed] = {}  # what is not answered
        self._look: asyncio.TimerHandle | None = None
        for parser in self._translators:
            consumers[parser].watch(self._answered)

    async def program(self, node: NodePolicy, ports: Mapping[str, int], patience: Patience) -> Programmed:
        self._owed = {}
        refused: dict[str, str] = {}
        for parser, translator in self._translators.items():
            table = translator.translate(node, ports)
            self._consumers[parser].cache.publish(table)
            refused.update((error.slot, error.message) for error in table.errors)
        # A slot without a listener is only a filter for what Envoy drains: perhaps nobody asks for it any more.
        listening = [slot for slot in node.slots if slot.name in ports and slot.name not in refused]
        names = {
            parser: found
            for parser in self._consumers
            if (found := [slot.name for slot in listening if slot.parser is parser])
        }
        self._need(names.keys())
        await asyncio.gather(*(self._wait(parser, found, patience) for parser, found in names.items()))
        missing: set[str] = set()
        for parser, found in names.items():
            result = self._consumers[parser].answers(_keys(parser, found))
            refused.update(_by_slot(parser, result.nacked, found))
            owed = [key for key in result.missing if key.name not in refused]
            missing |= _by_slot(parser, dict.fromkeys(owed, ""), found).keys() - refused.keys()
            self._owed[parser] = {kind: [key.name for key in owed if key.type_url == kind] for kind in _types(parser)}
        return Programmed(refused, frozenset(missing))

    async def _wait(self, parser: L7Parser, names: Collection[str], patience: Patience) -> None:
        prompt = [name for name in names if name not in patience.late]
        if prompt:
            await self._consumers[parser].wait_acked(_keys(parser, prompt), patience.seconds)

    def _answered(self) -> None:
        """Answers come one by one, a thousand of them when Envoy comes back: look after a while, not at each."""
        if any(any(owed.values()) for owed in self._owed.values()) and self._look is None:
            self._look = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._look_at_answers)

    def _look_at_answers(self) -> None:
        self._look = None
        answers: list[AckResult] = [self._consumers[parser].answers(owed) for parser, owed in self._owed.items()]
        if any(result.acked or result.nacked for result in answers):
            self._on_progress()


def _types(parser: L7Parser) -> tuple[str, ...]:
    common = _OF_ALL_SLOTS.get(parser)
    return (*_OF_A_SLOT[parser], *([common.type_url] if common else []))


def _keys(parser: L7Parser, names: Collection[str]) -> Owed:
    """What is to be accepted for these slots."""
    keys: dict[str, Collection[str]] = dict.fromkeys(_OF_A_SLOT[parser], names)
    if (common := _OF_ALL_SLOTS.get(parser)) is not None:
        keys[common.type_url] = [common.name]
    return keys


def _by_slot(parser: L7Parser, words: Mapping[Key, str], names: Collection[str]) -> dict[str, str]:
    """What is said of keys, said of slots; of what all depend on, it is said of all."""
    common = _OF_ALL_SLOTS.get(parser)
    found = dict.fromkeys(names, words[common]) if common is not None and common in words else {}
    return {**found, **{key.name: text for key, text in words.items() if key != common}}
