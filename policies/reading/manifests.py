"""Text of a manifest file -> raw documents with their lines. Pure: files are read by policies/watch.py.

libyaml's events are built into values here, and not by PyYAML's constructor, for what Kubernetes needs and that one
does not do: duplicate keys are errors, dates stay text, every document knows its line, aliases cannot explode, and ten
thousand rules take a quarter of the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import yaml
from yaml import events

from policies.errors import PolicyError, PolicyErrors, Reason
from policies.reading.fields import steps_of

DEPTH_MAX: Final = 64  # a Pod needs 12; hostile nesting exhausts the stack of whoever walks it
NODES_MAX: Final = 2_000_000  # values per document, aliases counted as often as they are used (billion laughs)
SUFFIXES: Final = (".yaml", ".yml", ".json")  # of files that are manifests
TEXT_MAX: Final = 16 * 1024 * 1024  # bytes per file; the API server takes 3 MiB per request

_SEPARATOR: Final = re.compile(r"^(?:---|\.\.\.)(?=[ \t\r\n]|$)", re.MULTILINE)
_TAG: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset({None, "!", *(_TAG + name for name in ("str", "map", "seq"))})
# YAML as Kubernetes reads it (go-yaml v2): 1.1 booleans, no dates, no base 60.
_MAYBE_TYPED: Final = frozenset("0123456789+-.~nNtTfFyYoO")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS: Final = {
    variant: truth
    for truth, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for word in words
    for variant in (word, word.capitalize(), word.upper())
}
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*|0[0-7]+|0o[0-7]+|0x[0-9a-fA-F]+|0b[01]+)")
_FLOAT: Final = re.compile(
    r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


@dataclass(frozen=True, slots=True)
class Document:
    """One object as written. `line` counts from 1; `prefix` is the path of its list entry in a kind List."""

    raw: Any
    line: int
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a file that can be read alone: what stands between two document separators."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class FileEvent:
    """A manifest file as it is now. `text` None and no error: removed. With an error it could not be read."""

    path: str
    text: str | None
    error: str = ""


def read_documents(text: str, source: str = "") -> list[Document]:
    """All objects of a file, kind List unpacked, empty documents left out.

    Raises PolicyErrors with one SyntaxError that names line and column.
    """
    return [
        Document(document.raw, document.line + chunk.line - 1, document.prefix)
        for chunk in split(text)
        for document in read_chunk(chunk, source)
    ]


def split(text: str) -> list[Chunk]:
    """Cut a file at its document separators, which YAML recognises at the start of any line, even inside a scalar."""
    text = text.removeprefix("\ufeff")
    if text.startswith("%") or "\n%" in text:  # directives belong to the document after the separator
        return [Chunk(text, 1)]
    cuts = [0, *(match.start() for match in _SEPARATOR.finditer(text)), len(text)]
    chunks, line = [], 1
    for start, end in pairwise(cuts):
        piece = text[start:end]
        if not _is_blank(piece):
            chunks.append(Chunk(piece, line))
        line += piece.count("\n")
    return chunks


def read_chunk(chunk: Chunk, source: str = "") -> list[Document]:
    """The objects of one chunk, lines counted from its start. Raises PolicyErrors, lines counted in the file."""
    builder = _Builder()
    try:
        for event in _events(chunk.text):
            builder.take(event)
    except (_Malformed, yaml.YAMLError) as error:
        raise PolicyErrors([_syntax_error(error, chunk, source)]) from None
    return [document for root in builder.roots if root is not None for document in _unpacked(root, builder.lines)]


class Locator:
    """Paths -> lines of one chunk. Builds the whole node tree, once, at the first question: for error messages only."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._root: yaml.Node | None = None
        self._is_read = False

    def line(self, path: str) -> int:
        """The line (from 1) where the field of that path stands, or the nearest thing around it; 0 if none."""
        if not self._is_read:
            self._is_read = True
            with suppress(yaml.YAMLError, RecursionError):
                self._root = yaml.compose(self._text, Loader=yaml.CSafeLoader)
        node = self._root
        line = node.start_mark.line + 1 if node is not None else 0
        for step in steps_of(path):
            found = _step(node, step)
            if found is None:
                break
            key, node = found
            line = key.start_mark.line + 1
        return line


def locate(locator: Locator, document: Document, path: str) -> int:
    """The line of a field of a document, counted from the start of its chunk: its own, or that of what it is in."""
    inside = ".".join(step for step in (document.prefix, path) if step)
    return locator.line(inside) or document.line


def _step(node: yaml.Node | None, step: str) -> tuple[yaml.Node, yaml.Node] | None:
    """The key (or item) and the value that this step leads to."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
        return node.value[int(step)], node.value[int(step)]
    return None


class _Malformed(Exception):
    """YAML that this reader refuses though libyaml reads it."""

    def __init__(self, message: str, mark: Any) -> None:
        self.problem = message
        self.problem_mark = mark
        super().__init__(message)


def _events(text: str) -> Iterator[Any]:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Malformed("contains characters that are not Unicode", None) from None
    return iter(yaml.CSafeLoader(text).get_event, None)


class _Builder:
    """Events in, values out. `lines` knows where each mapping and list down to depth three begins."""

    def __init__(self) -> None:
        self.roots: list[Any] = []
        self.lines: dict[int, int] = {}
        self._open: list[tuple[Any, str | None, int, str | None]] = []  # container, key, nodes before it, anchor
        self._into: Any = None
        self._key: str | None = None
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = 0

    def take(self, event: Any) -> None:
        kind = type(event)
        if kind is events.ScalarEvent:
            into, key = self._into, self._key
            if type(into) is not dict:
                self._add(_scalar(event), event)
            elif key is None:
                self._take_key(event)
            else:  # _add, without the call: most of any file
                into[key] = _scalar(event)
                self._key = None
                self._nodes += 1
            if event.anchor:
                self._anchors[event.anchor] = (_scalar(event), 1)
        elif kind is events.MappingStartEvent or kind is events.SequenceStartEvent:
            self._begin({} if kind is events.MappingStartEvent else [], event)
        elif kind is events.MappingEndEvent or kind is events.SequenceEndEvent:
            self._end()
        elif kind is events.AliasEvent:
            self._add_alias(event)
        elif kind is events.DocumentStartEvent:
            self._anchors, self._nodes = {}, 0

    def _take_key(self, event: Any) -> None:
        key: str = event.value
        if key in self._into:
            raise _Malformed(f'the key "{key}" stands here for the second time', event.start_mark)
        if key == "<<" and event.implicit[0]:
            raise _Malformed("merge keys (<<) are not supported: write the fields out", event.start_mark)
        self._key = key

    def _add(self, value: Any, event: Any, nodes: int = 1) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            raise _Malformed(f"more than {NODES_MAX} values in one document", event.start_mark)
        into = self._into
        if type(into) is dict:
            if self._key is None:
                raise _Malformed("a key must be a plain string", event.start_mark)
            into[self._key] = value
            self._key = None
        elif into is None:
            self.roots.append(value)
        else:
            into.append(value)

    def _begin(self, container: Any, event: Any) -> None:
        if event.tag not in _TAGS:
            raise _Malformed(f"tag {event.tag} is not supported", event.start_mark)
        if len(self._open) >= DEPTH_MAX:
            raise _Malformed(f"nested deeper than {DEPTH_MAX}", event.start_mark)
        if len(self._open) < 3:
            self.lines[id(container)] = event.start_mark.line + 1
        self._add(container, event)
        self._open.append((self._into, self._key, self._nodes, event.anchor))
        self._into, self._key = container, None

    def _end(self) -> None:
        container = self._into
        self._into, self._key, before, anchor = self._open.pop()
        if anchor:
            self._anchors[anchor] = (container, self._nodes - before + 1)

    def _add_alias(self, event: Any) -> None:
        found = self._anchors.get(event.anchor)
        if found is None:
            raise _Malformed(f"alias *{event.anchor} refers to nothing before it", event.start_mark)
        self._add(found[0], event, found[1])


def _scalar(event: Any) -> Any:
    value: str = event.value
    if event.tag is not None and event.tag not in _TAGS:
        raise _Malformed(f"tag {event.tag} is not supported", event.start_mark)
    if not event.implicit[0] or (value and value[0] not in _MAYBE_TYPED):
        return value
    return _typed(value)


def _typed(value: str) -> Any:
    if value in _NULLS:
        return None
    if value in _BOOLS:
        return _BOOLS[value]
    if _INT.fullmatch(value) and len(value) < 64:
        digits = value.lstrip("+-")
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        return (-1 if value[0] == "-" else 1) * (int(digits, 8) if octal else int(digits, 0))
    if _FLOAT.fullmatch(value):
        return float(value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return value


def _unpacked(root: Any, lines: dict[int, int]) -> Iterator[Document]:
    line = lines.get(id(root), 1)
    if isinstance(root, dict) and root.get("kind") == "List" and isinstance(root.get("items"), list):
        for i, item in enumerate(root["items"]):
            yield Document(item, lines.get(id(item), line), f"items[{i}]")
    else:
        yield Document(root, line)


def _is_blank(piece: str) -> bool:
    return all(line.strip() in ("", "---", "...") or line.lstrip().startswith("#") for line in piece.splitlines())


def _syntax_error(error: Exception, chunk: Chunk, source: str) -> PolicyError:
    mark = getattr(error, "problem_mark", None)
    words = getattr(error, "problem", None) or " ".join(str(error).split())
    context = getattr(error, "context", None)
    before = chunk.text.encode(errors="replace")[: getattr(error, "position", 0) or 0]
    line = chunk.line + (mark.line if mark else before.count(b"\n"))
    column = f"column {mark.column + 1}: " if mark else ""
    message = f"{column}{words}{f' {context}' if context else ''}"
    return PolicyError("", "", "", "", Reason.SYNTAX, message, source, line)
