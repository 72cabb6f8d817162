"""Labels of studies: words of an administrator's own, by which accounts may be kept to a part of the archive."""

from collections.abc import Sequence
from typing import Any

from psycopg_pool import ConnectionPool

from pacs.domain.events import Source
from pacs.domain.roles import LONGEST_WORD, MOST_WORDS
from pacs.errors import BadRequest, NotFound
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services import audit

SQL = queries("labels")
ABSENT = "No such study is stored here."


class Labels:
    """Thread-safe. All methods raise Unavailable."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool

    def of_study(self, study_uid: str) -> list[str]:
        """The labels of a study, sorted. Raises NotFound."""
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["of_study"], {"study_uid": study_uid}).fetchone()
        if row is None:
            raise NotFound(ABSENT)
        return list(row[0])

    def put(self, study_uid: str, labels: object, source: Source) -> list[str]:
        """Give a study these labels and no other. Raises NotFound, BadRequest."""
        wanted = _checked(labels)
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["lock"], {"study_uid": study_uid}).fetchone()
            if row is None:
                raise NotFound(ABSENT)
            for name in ("clear", "put"):
                connection.execute(SQL[name], {"pk": row[0], "labels": wanted})
            audit.record(connection, [audit.row(source, "label", study_uid=study_uid, detail={"labels": len(wanted)})])
        return sorted(wanted)


def _checked(labels: object) -> Sequence[str]:
    words = labels if isinstance(labels, list) and len(labels) <= MOST_WORDS else None
    if words is None or not all(isinstance(word, str) and 0 < len(word.strip()) <= LONGEST_WORD for word in words):
        raise BadRequest(f"labels is a list of at most {MOST_WORDS} words of up to {LONGEST_WORD} characters.")
    if any("\0" in word for word in words):
        raise BadRequest("A label holds a NUL character.")
    return list(dict.fromkeys(word.strip() for word in words))
