"""The bypass corpus as a suite: a scenario per section, each with the policy that the corpus names.

Pure but for reading the corpus.
"""

from __future__ import annotations

import itertools
import re

from conformance.blueprint import POD_NET_V4, POD_NET_V6, Blueprint, Pod
from conformance.bypass import Allowed, CorpusError, corpus
from conformance.errors import SuiteError
from conformance.objects import policy_object
from conformance.scenario import Level, Policy, Scenario, Sneak, Suite

BYPASS = "bypass"
SERVER, CLIENT = "vault", "thief"
POLICY = "public"
PORT = 80


def bypass_suite() -> Suite:
    """Raises SuiteError if the corpus cannot be read."""
    try:
        read = corpus()
    except CorpusError as error:
        raise SuiteError("bypass.txt", str(error)) from None
    policy = policy_object("CiliumNetworkPolicy", POLICY, "default", {"spec": _spec(read.allowed)})
    sections = itertools.groupby(read.tricks, lambda trick: trick.section)
    scenarios = tuple(
        Scenario(
            name=re.sub("[^a-z0-9]+", "-", section.lower()),
            title=f"{section}: nothing forbidden arrives, whatever a server makes of it",
            level=Level.CORE,
            policies=(POLICY,),
            steps=(Sneak(CLIENT, SERVER, tuple(tricks), read.allowed),),
        )
        for section, tricks in sections
    )
    return Suite(BYPASS, {POLICY: Policy(POLICY, POLICY, (policy,))}, scenarios, _galaxy())


def _spec(allowed: tuple[Allowed, ...]) -> dict[str, object]:
    rules = [
        {
            "method": rule.method,
            "path": rule.path,
            "host": rule.host,
            **({"headers": [": ".join(rule.header)]} if rule.header else {}),
        }
        for rule in allowed
    ]
    ports = [{"port": str(PORT), "protocol": "TCP"}]
    return {
        "endpointSelector": {"matchLabels": {"app": SERVER}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"app": CLIENT}}],
                "toPorts": [{"ports": ports, "rules": {"http": rules}}],
            }
        ],
    }


def _galaxy() -> Blueprint:
    pods = tuple(
        Pod(alias, alias, (("app", alias),), POD_NET_V4.format(host), POD_NET_V6.format(host))
        for host, alias in enumerate((SERVER, CLIENT), 11)
    )
    return Blueprint(BYPASS, pods)
