"""The part of YAML that our files under deploy/ use, read strictly: what is not known here is an error.

Block mappings and sequences, flow sequences and mappings of scalars, plain and quoted scalars, comments, anchors,
aliases and merge keys. No dependency reads YAML, and these files are all that is to be read.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

KEY = re.compile(r'(?P<key>"[^"]*"|<<|[A-Za-z0-9_./-]+):(?:\s+(?P<rest>.*))?$')
TOKEN = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^][{},:"']+(?::(?=\S)[^][{},"']+)*)\s*""")
WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


class NotPlain(ValueError):
    """The text is no YAML, or YAML of a kind that is not read here."""


@dataclass
class Line:
    number: int
    indent: int
    text: str


def load(text: str) -> Any:
    """The document's value. Raises NotPlain naming the line."""
    lines = list(_lines(text))
    reader = _Reader(lines)
    found = reader.block(lines[0].indent)
    if reader.at < len(lines):
        raise NotPlain(f"line {lines[reader.at].number}: indented otherwise than the block it follows")
    return found


def _lines(text: str) -> Iterator[Line]:
    for number, raw in enumerate(text.splitlines(), 1):
        bare = _uncommented(raw).rstrip()
        if "\t" in bare:
            raise NotPlain(f"line {number}: a tab")
        if bare.strip() and bare != "---":
            yield Line(number, len(bare) - len(bare.lstrip()), bare.strip())


def _uncommented(raw: str) -> str:
    quote = ""
    for at, letter in enumerate(raw):
        if quote:
            if letter == quote and not (quote == '"' and raw[at - 1] == "\\"):
                quote = ""
        elif letter in "\"'" and (at == 0 or raw[at - 1] in " [{,:"):
            quote = letter
        elif letter == "#" and (at == 0 or raw[at - 1] == " "):
            return raw[:at]
    return raw


@dataclass
class _Reader:
    lines: list[Line]
    at: int = 0
    anchors: dict[str, Any] = field(default_factory=dict)

    def block(self, indent: int) -> Any:
        is_list = self.lines[self.at].text.startswith("- ")
        return self._sequence(indent) if is_list else self._mapping(indent)

    def _ours(self, indent: int) -> Line | None:
        line = self.lines[self.at] if self.at < len(self.lines) else None
        return line if line and line.indent == indent else None

    def _sequence(self, indent: int) -> list[Any]:
        found: list[Any] = []
        while (line := self._ours(indent)) and line.text.startswith("- "):
            rest = line.text[2:].lstrip()
            if KEY.match(rest):  # a mapping whose first key stands behind the dash
                line.indent, line.text = indent + len(line.text) - len(rest), rest
                found.append(self._mapping(line.indent))
            else:
                self.at += 1
                found.append(self._inline(rest, line))
        return found

    def _mapping(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while (line := self._ours(indent)) and not line.text.startswith("- "):
            match = KEY.match(line.text)
            if not match:
                raise NotPlain(f"line {line.number}: no key: {line.text}")
            self.at += 1
            key, value = match["key"].strip('"'), self._value(match["rest"] or "", line)
            if key == "<<":
                merged = value
            elif key in found:
                raise NotPlain(f"line {line.number}: {key} a second time")
            else:
                found[key] = value
        return merged | found

    def _value(self, rest: str, line: Line) -> Any:
        name, _, after = rest[1:].partition(" ") if rest.startswith("&") else ("", "", rest)
        after = after.strip()
        following = self.lines[self.at] if self.at < len(self.lines) else None
        deeper = following and (
            following.indent > line.indent or (following.indent == line.indent and following.text.startswith("- "))
        )
        value = self.block(following.indent) if following and deeper and not after else self._inline(after, line)
        if name:
            self.anchors[name] = value
        return value

    def _inline(self, text: str, line: Line) -> Any:
        if text.startswith("*"):
            return self.anchors[text[1:]]
        if text[:1] in {"|", ">", "!", "&", "?", "%", "@", "`"}:
            raise NotPlain(f"line {line.number}: not read here: {text}")
        if text[:1] in {"[", "{"}:
            value, rest = _flow(text, line)
        elif text[:1] in {'"', "'"}:
            value, rest = _scalar(text, line)
        else:
            return _plain(text, line)
        if rest.strip():
            raise NotPlain(f"line {line.number}: more behind a value: {rest}")
        return value


def _flow(text: str, line: Line) -> tuple[Any, str]:
    """A flow sequence or mapping at the text's begin, and what follows it."""
    is_list, rest = text[0] == "[", text[1:].lstrip()
    pairs: list[tuple[str, Any]] = []
    while rest[:1] not in {"]", "}"}:
        key = ""
        if not is_list:
            key, _, rest = rest.partition(":")
        value, rest = _flow(rest.lstrip(), line) if rest.lstrip()[:1] in {"[", "{"} else _scalar(rest, line)
        pairs.append((key.strip(), value))
        rest = rest.lstrip().removeprefix(",").lstrip()
        if not rest:
            raise NotPlain(f"line {line.number}: a bracket that is not closed")
    return [value for _, value in pairs] if is_list else dict(pairs), rest[1:]


def _scalar(text: str, line: Line) -> tuple[Any, str]:
    match = TOKEN.match(text)
    if not match:
        raise NotPlain(f"line {line.number}: no value: {text}")
    token, rest = match[1], text[match.end() :]
    if token[0] == '"':
        return json.loads(token), rest
    if token[0] == "'":
        return token[1:-1].replace("''", "'"), rest
    return _plain(token.strip(), line), rest


def _plain(text: str, line: Line) -> Any:
    if ": " in text or text.endswith(":"):
        raise NotPlain(f"line {line.number}: a colon in a plain value: {text}")
    if text in WORDS:
        return WORDS[text]
    if text.lower() in {"yes", "no", "on", "off", "true", "false", "null"}:
        raise NotPlain(f"line {line.number}: {text} means different things to different readers; quote it")
    if NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text
