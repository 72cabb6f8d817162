"""docs/runbook.md as tests read it: its commands in order, each with the heading it stands under."""

import re
import shlex
from dataclasses import dataclass

from tests.deploy import shipped

TEXT = (shipped.ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
COMPOSE = "docker compose "


@dataclass(frozen=True)
class Line:
    """A command, and the headings above it."""

    heading: str
    text: str

    @property
    def env(self) -> dict[str, str]:
        """The variables that are set before the command."""
        return dict(word.split("=", 1) for word in self._words[: self._start])

    @property
    def words(self) -> list[str]:
        return self._words[self._start :]

    @property
    def _words(self) -> list[str]:
        return shlex.split(self.text)

    @property
    def _start(self) -> int:
        return next(i for i, word in enumerate(self._words) if not re.match(r"[A-Z_]+=", word))


def lines() -> list[Line]:
    """What stands in blocks of commands."""
    found: list[Line] = []
    above = below = ""
    fenced = False
    for text in TEXT.splitlines():
        if text.startswith("```"):
            fenced = text == "```sh"
        elif fenced:
            found.append(Line(f"{above} / {below}" if below else above, text))
        elif text.startswith("## "):
            above, below = text[3:], ""
        elif text.startswith("### "):
            below = text[4:]
    return found


def quoted() -> list[str]:
    """Commands in running text."""
    return [text for text in re.findall(r"`([^`\n]+)`", TEXT) if text.startswith(("filmroom ", COMPOSE))]


def inner(text: str) -> list[str] | None:
    """The words for `filmroom` in a command; None where it is another program."""
    words = Line("", text).words
    if words[0] == "filmroom":
        return words[1:]
    if text.startswith(COMPOSE):
        _options, verb, _service, rest = compose(text)
        if verb == "run":  # the image's entry point is filmroom
            return rest
        if rest[:1] == ["filmroom"]:
            return rest[1:]
    return None


def compose(text: str) -> tuple[list[tuple[str, str]], str, str, list[str]]:
    """A line for compose: its own options, its verb, the service (where it is one), what is run there."""
    words, options = shlex.split(text)[2:], []
    while words[0].startswith("-"):
        option, value, *words = words
        options.append((option, value))
    verb, *rest = words
    while rest and rest[0].startswith("-"):
        rest = rest[2 if rest[0] in {"-v", "--tail", "--scale"} else 1 :]
    return options, verb, rest[0] if rest else "", rest[1:]
