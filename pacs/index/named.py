"""Fixed SQL lives in `.sql` files beside this module: a line `-- name: x`, a line that describes it, the statement."""

import re
from functools import cache
from pathlib import Path

NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def queries(subject: str) -> dict[str, bytes]:
    """The statements of `pacs/index/<subject>.sql` by name, ready for `Connection.execute`.

    Raises ValueError for a file that names a statement twice or begins with something else.
    """
    text = Path(__file__).with_name(f"{subject}.sql").read_text(encoding="utf-8")
    head, *parts = NAME.split(text)
    names, bodies = parts[::2], parts[1::2]
    if head.strip() or len(set(names)) != len(names):
        raise ValueError(f"{subject}.sql must hold named statements only, each name once")
    return {name: _statement(body) for name, body in zip(names, bodies, strict=True)}


def _statement(body: str) -> bytes:
    """Without its comments and its semicolon: a prepared statement holds one command."""
    lines = (line for line in body.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(lines).strip().rstrip(";").encode()
