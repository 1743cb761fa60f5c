"""Text of a manifest file -> what is to be said of each document, by either judge: this project, or Cilium. Pure.

The readers that a node uses, and nothing else: what is valid here is enforced there. Cilium v1.19.4 is judged as a user
of a cluster meets it: the schema of its resources, then its own check; where only a oneOf or a format of the schema
would refuse what facts 1.4 accept (`rules: {}`, bare addresses in fromCIDR), its own check decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from policies.advising.advice import advise
from policies.errors import PolicyError, PolicyErrors, Reason, Severity, in_order
from policies.ir import L7Parser
from policies.objects import ObjectKey
from policies.reading.manifests import Chunk, Document, Locator, locate, read_chunk, split
from policies.reading.readers import identify, read_object
from policies.rules import FqdnPeer, Policy


class Judge(StrEnum):
    """Who says what is valid."""

    DEFLECTOR = "deflector"
    CILIUM = "cilium"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One document: `number` counts from 1 within its file, `line` is where it begins. Findings know their lines."""

    file: str
    number: int
    line: int
    kind: str = ""
    namespace: str = ""
    name: str = ""
    errors: tuple[PolicyError, ...] = ()
    warnings: tuple[PolicyError, ...] = ()

    @property
    def valid(self) -> bool:
        return not self.errors


class Validator:
    """Judges files one after the other; an object in two of them is found, and in the end what no file says."""

    def __init__(self, judge: Judge = Judge.DEFLECTOR) -> None:
        self._judge = judge
        self._seen: dict[ObjectKey, str] = {}
        self._has_dns_rules = False
        self._unlearnt: dict[tuple[str, int], list[PolicyError]] = {}  # by file and number of the document

    def judge(self, text: str, file: str) -> tuple[Verdict, ...]:
        """Every document of a file, in order. A syntax error is a document of its own; the others are judged."""
        found: list[Verdict] = []
        for chunk in split(text):
            found += self._judge_chunk(chunk, file, len(found))
        return tuple(found)

    def together(self, verdicts: Iterable[Verdict]) -> list[Verdict]:
        """What was said of all files, and what is to be said of them together: toFQDNs opens no lookups, so without any
        DNS rule no address is ever learned (facts 6.3)."""
        if self._has_dns_rules:
            return list(verdicts)
        found = ((verdict, self._unlearnt.get((verdict.file, verdict.number), ())) for verdict in verdicts)
        return [replace(verdict, warnings=in_order([*verdict.warnings, *more])) for verdict, more in found]

    def _judge_chunk(self, chunk: Chunk, file: str, before: int) -> list[Verdict]:
        try:
            documents = read_chunk(chunk, file)
        except PolicyErrors as failure:
            errors = tuple(replace(error, by_cilium=True) for error in failure.errors)
            return [Verdict(file, before + 1, errors[0].line or chunk.line, errors=errors)]
        locator = Locator(chunk.text)
        return [
            self._judge_document(document, (locator, chunk), Verdict(file, before + i, chunk.line - 1 + document.line))
            for i, document in enumerate(documents, start=1)
        ]

    def _judge_document(self, document: Document, place: tuple[Locator, Chunk], blank: Verdict) -> Verdict:
        locator, chunk = place
        reading = read_object(document.raw)
        findings = [*reading.errors, *reading.warnings]
        unlearnt: list[PolicyError] = []
        if isinstance(reading.good, Policy):
            findings += advise(reading.good)
            unlearnt += _unlearnt(reading.good)
            self._has_dns_rules |= _has_dns_rules(reading.good)

        def placed(found: Iterable[PolicyError]) -> list[PolicyError]:
            return [f.at(blank.file, chunk.line - 1 + locate(locator, document, f.path)) for f in found]

        if unlearnt:
            self._unlearnt[blank.file, blank.number] = placed(unlearnt)
        findings = placed(findings)
        findings += self._duplicate(document, blank)
        errors, warnings = _sorted_by(self._judge, findings)
        return replace(_named(blank, document), errors=errors, warnings=warnings)

    def _duplicate(self, document: Document, blank: Verdict) -> list[PolicyError]:
        key = identify(document.raw)
        if key is None:
            return []
        here = f"{blank.file}:{blank.line}"
        there = self._seen.setdefault(key, here)
        if there == here:
            return []
        message = f"also in {there}: of two in one folder, the first is in force"
        return [PolicyError(*key, "", Reason.DUPLICATE, message, blank.file, blank.line, Severity.WARNING)]


def _has_dns_rules(policy: Policy) -> bool:
    """Whether it lets lookups be seen."""
    clauses = (clause for rule in policy.rules for clause in rule.egress)
    return any(entry.parser is L7Parser.DNS for clause in clauses for entry in clause.to_ports)


def _unlearnt(policy: Policy) -> Iterator[PolicyError]:
    """Its toFQDNs, to be told of if nobody has DNS rules."""
    words = "no DNS rule in any of these files lets lookups be seen: no address is ever learned"
    for clause in (clause for rule in policy.rules for clause in rule.egress):
        if any(isinstance(peer, FqdnPeer) for peer in clause.peers or ()):
            about = (policy.kind, policy.namespace, policy.name, f"{clause.origin.path}.toFQDNs")
            yield PolicyError(*about, Reason.SELECTS_NOTHING, words, severity=Severity.WARNING)


def _named(blank: Verdict, document: Document) -> Verdict:
    key = identify(document.raw)
    if key is not None:
        return replace(blank, kind=key.kind, namespace=key.namespace, name=key.name)
    raw = document.raw if isinstance(document.raw, dict) else {}
    metadata = raw.get("metadata") if isinstance(raw.get("metadata"), dict) else {}
    words = [value if isinstance(value, str) else "" for value in (raw.get("kind"), *_place(metadata))]
    return replace(blank, kind=words[0], namespace=words[1], name=words[2])


def _place(metadata: object) -> tuple[object, object]:
    return (metadata.get("namespace"), metadata.get("name")) if isinstance(metadata, dict) else ("", "")


def _sorted_by(
    judge: Judge, findings: Sequence[PolicyError]
) -> tuple[tuple[PolicyError, ...], tuple[PolicyError, ...]]:
    """What refuses the object in the eyes of this judge, and the rest."""
    if judge is Judge.CILIUM:
        errors = [finding for finding in findings if finding.by_cilium]
    else:
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    refusing = set(errors)
    rest = [finding for finding in findings if finding not in refusing]
    return _as(Severity.ERROR, errors), _as(Severity.WARNING, rest)


def _as(severity: Severity, findings: Iterable[PolicyError]) -> tuple[PolicyError, ...]:
    return in_order(replace(finding, severity=severity) for finding in findings)
