"""Which labels of a pod make its identity: everything but what differs between replicas, or what a person says. Pure.

The words are those of Cilium's agent (--labels, pkg/labelsfilter): patterns, each perhaps with a source before a colon,
and with an exclamation mark if it leaves labels out: `k8s:app k8s:!io\\.kubernetes k8s:role`. A pattern is an RE2 that
must match at the start of the key. Once one pattern includes, labels that none includes are left out. Of an including
and an excluding match the longer one wins.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import re2

from policies.labels import CLUSTER_KEY, K8S, NAMESPACE_KEY

KEYS_MAX: Final = 65536  # keys that are remembered; a cluster has hundreds
# Cilium's defaults: these include and leave out before what a person says.
_DEFAULTS: Final = (
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"app\.kubernetes\.io",
    r"io\.cilium\.k8s\.policy\.cluster",
    r"!io\.kubernetes",
    r"!kubernetes\.io",
    r"!statefulset\.kubernetes\.io/pod-name",
    r"!apps\.kubernetes\.io/pod-index",
    r"!batch\.kubernetes\.io/job-completion-index",
    r"!batch\.kubernetes\.io/controller-uid",
    r"!.*beta\.kubernetes\.io",
    r"!k8s\.io",
    r"!pod-template-generation",
    r"!pod-template-hash",
    r"!controller-revision-hash",
    r"!controller-uid",
    r"!annotation.*",
    r"!etcd_node",
)
_ALWAYS: Final = frozenset({NAMESPACE_KEY, CLUSTER_KEY})  # without these, policies of one namespace would reach another


class _Pattern(NamedTuple):
    expression: Any
    excludes: bool


class LabelFilter:
    """What a person says, and the defaults. Raises ValueError with one sentence for what cannot be."""

    def __init__(self, words: str) -> None:
        own = [_parse(word) for word in re.split(r"[\s,]+", words) if word]
        self._patterns = [*(_parse(word) for word in _DEFAULTS), *(p for p in own if p is not None)]
        self._only_included = any(p is not None and not p.excludes for p in own)
        self._known: dict[str, bool] = {}

    def keeps(self, key: str) -> bool:
        """Whether the label of that key, of Kubernetes, is part of the identity."""
        kept = self._known.get(key)
        if kept is None:
            if len(self._known) >= KEYS_MAX:
                self._known.clear()
            kept = self._known[key] = key in _ALWAYS or self._decide(key)
        return kept

    def _decide(self, key: str) -> bool:
        found = [(p.excludes, m.end()) for p in self._patterns if p is not None and (m := p.expression.search(key))]
        found = [(excludes, length) for excludes, length in found if length]
        included = max((length for excludes, length in found if not excludes), default=0)
        excluded = min((length for excludes, length in found if excludes), default=0)
        return (not self._only_included and not excluded) or included > excluded


def _parse(word: str) -> _Pattern | None:
    """None: it is about labels of another source than Kubernetes, and pods have none."""
    source, colon, written = word.partition(":")
    source, written = (source, written) if colon else ("", word)
    excludes = written.startswith("!")
    pattern = written[1:] if excludes else written
    if not pattern:
        raise ValueError(f"{word!r} has no pattern for the keys of labels")
    try:
        expression = re2.compile(f"^(?:{pattern})")
    except re2.error as error:
        raise ValueError(f"{word!r} is no regular expression: {error}") from None
    return _Pattern(expression, excludes) if source in ("", K8S) else None
