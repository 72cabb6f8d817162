"""What leaves by DIMSE: which instances a request names, and the bytes of each in a transfer syntax the receiver takes.

C-GET, C-MOVE and forwarding send through here. Stored bytes go out untouched where the receiver takes their syntax;
else the object is rewritten beforehand as a whole, so that one that cannot be decoded spoils no message half sent.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from psycopg.sql import SQL
from psycopg_pool import ConnectionPool

from pacs.domain.query import Query
from pacs.domain.syntaxes import EXPLICIT_LE, IMPLICIT_LE
from pacs.errors import FilmroomError, NotFound, Unavailable
from pacs.index.compile import compile_query
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services.instances import Files, StoredInstance
from pacs.services.transcode import Decode, native_data_set

MOST = 100_000  # instances of one request; more is a mistake or an attack
CONVERTIBLE = (EXPLICIT_LE, IMPLICIT_LE)  # what any stored object may be rewritten as, the better one first
_OUTPUTS = SQL("i.pk, i.sop_class_uid, i.sop_instance_uid, i.transfer_syntax_uid, t.study_uid, t.patient_id")
_RETRIEVE = queries("retrieve")


class Candidate(NamedTuple):
    """An instance to be sent, as far as its presentation context asks."""

    pk: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_uid: str
    patient_id: str


class TooMany(FilmroomError):
    """A request names more instances than one may take."""

    code = "too-many"


@dataclass(frozen=True, slots=True)
class Body:
    """One data set: `length` bytes of `file` from `offset`. `stored`: the bytes that are kept. Close it."""

    file: BinaryIO
    offset: int
    length: int
    stored: bool

    def close(self) -> None:
        """Let go of the file; a rewritten one is gone then."""
        self.file.close()


class Outgoing:
    """Thread-safe. `scratch` is a folder for objects that are rewritten; their files have no names."""

    def __init__(self, pool: ConnectionPool[Any], files: Files, decode: Decode, scratch: Path) -> None:
        self._pool, self._files, self._decode, self._scratch = pool, files, decode, scratch

    def select(self, query: Query) -> list[Candidate]:
        """The instances that satisfy a query of the instance level, in the order of their series.

        Raises BadRequest for a malformed key, TooMany, Unavailable.
        """
        statement = compile_query(query, _OUTPUTS, limit=MOST + 1)
        with transaction(self._pool) as connection:
            rows = connection.execute(statement.text, statement.values, prepare=False).fetchall()
        if len(rows) > MOST:
            raise TooMany(f"The request names more than {MOST} instances; ask for fewer.")
        return [Candidate._make(row[: len(Candidate._fields)]) for row in rows]  # the order may add columns

    def load(self, candidates: Iterable[Candidate]) -> dict[int, StoredInstance]:
        """The rows of some candidates by pk; one that was deleted is missing. Raises Unavailable."""
        pks = [candidate.pk for candidate in candidates]
        with transaction(self._pool) as connection:
            rows = connection.execute(_RETRIEVE["by_pk"], {"pks": pks}).fetchall()
        return {row[0]: StoredInstance(*row) for row in rows}

    def body(self, instance: StoredInstance | None, transfer_syntax_uid: str) -> Body:
        """The data set of an instance in one of the syntaxes that `choices` names for it.

        Raises NotFound, Damaged, NotAcceptable when it cannot be so written, Unavailable when there is no disk space.
        """
        if instance is None:
            raise NotFound("The instance was deleted meanwhile.")
        file = self._files.open(instance)
        if transfer_syntax_uid == instance.transfer_syntax_uid:
            return Body(file, instance.data_offset, instance.size - instance.data_offset, stored=True)
        with file:
            return self._rewritten(file, instance, explicit=transfer_syntax_uid == EXPLICIT_LE)

    def _rewritten(self, file: BinaryIO, instance: StoredInstance, *, explicit: bool) -> Body:
        chunks = native_data_set(file, instance, explicit=explicit, decode=self._decode)
        try:
            made: BinaryIO = tempfile.TemporaryFile(dir=self._scratch, buffering=0)  # noqa: SIM115 (closed by the Body)
        except OSError as error:
            raise Unavailable("There is no place for an object to be rewritten; look at FILMROOM_HOME.") from error
        try:
            for chunk in chunks:
                _write(made, chunk)
        except BaseException:
            made.close()
            raise
        return Body(made, 0, made.tell(), stored=False)


def _write(file: BinaryIO, chunk: bytes) -> None:
    view = memoryview(chunk)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise Unavailable("There is no space for an object to be rewritten; free space on the disk.") from error


def choices(stored_syntax: str) -> Sequence[str]:
    """The transfer syntaxes in which an object stored so can be sent, best first."""
    return (stored_syntax, *(uid for uid in CONVERTIBLE if uid != stored_syntax))
