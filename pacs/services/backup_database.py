"""The database of a backup: one snapshot, dumped by pg_dump and brought back by pg_restore and psql.

The programs are those of the embedded server, or of the distribution where the server is newer. No password stands on
their command lines.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pacs.embedded.binaries import postgres_program
from pacs.embedded.process import clean_environment
from pacs.errors import FilmroomError, SettingsError, Unavailable
from pacs.index.named import queries
from pacs.index.pool import CONNECT_SECONDS, LIVELINESS

SQL = queries("backup")
DISTRIBUTIONS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
LOCK_WAIT = "60s"
HEAD_LINES = 40  # of a script of pg_restore: its settings stand there
# what a newer pg_restore says to every server, and an older server does not know
UNKNOWN_SETTING = re.compile(rb"SET (transaction_timeout|default_table_access_method|default_toast_compression)\b")


class Snapshot:
    """One moment of the database: everything read through it is of that moment."""

    def __init__(self, url: str, connection: psycopg.Connection[Any], name: str, programs: Path) -> None:
        self._url, self._connection, self._name, self._programs = url, connection, name, programs

    def dump(self, file: Path) -> str:
        """The database into a file of pg_dump's custom format; the program's version. Raises Unavailable."""
        options = ("--format=custom", "--no-owner", "--no-privileges", f"--lock-wait-timeout={LOCK_WAIT}")
        line: list[str | Path] = [
            self._programs / "pg_dump",
            *options,
            f"--snapshot={self._name}",
            f"--file={file}",
            *_dbname(self._url),
        ]
        done = subprocess.run(line, env=_environment(self._url), capture_output=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"pg_dump could not save the database: {_first_error(done.stderr)}")
        file.chmod(0o600)
        return version(self._programs)

    def list(self, what: str, file: IO[bytes]) -> None:
        """Object name, size and digest of all `objects` or `conflicts`, a line each."""
        with self._connection.cursor().copy(SQL[what]) as rows:
            for chunk in rows:
                file.write(chunk)


@contextmanager
def snapshot(url: str) -> Iterator[Snapshot]:
    """A snapshot that lasts as long as the block. Raises Unavailable, SettingsError when no pg_dump is there."""
    options = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
    try:
        with psycopg.connect(
            url, connect_timeout=CONNECT_SECONDS, application_name="filmroom backup", options=options, **LIVELINESS
        ) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            row = connection.execute(SQL["export"]).fetchone()
            yield Snapshot(url, connection, str(row[0]) if row else "", programs(connection.info.server_version))
    except psycopg.OperationalError as error:
        raise Unavailable("The database does not answer; check DATABASE_URL and that Postgres runs.") from error


def load(url: str, dump: Path) -> None:
    """Bring a dump into an empty database, all of it or nothing. Raises FilmroomError with the server's words."""
    with psycopg.connect(url, connect_timeout=CONNECT_SECONDS) as connection:
        folder = programs(connection.info.server_version)
    write: list[str | Path] = [
        folder / "pg_restore",
        "--no-owner",
        "--no-privileges",
        "--no-comments",
        "--file=-",
        dump,
    ]
    read: list[str | Path] = [
        folder / "psql",
        "-X",
        "-q",
        "--set=ON_ERROR_STOP=1",
        "--file=-",
        *_dbname(url),
    ]
    with (
        subprocess.Popen(write, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()) as writer,
        subprocess.Popen(
            read, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment(url)
        ) as reader,
    ):
        pipes = (writer.stdout, writer.stderr, reader.stdin, reader.stderr)
        script, complaints, into, answers = (cast(IO[bytes], pipe) for pipe in pipes)
        # a script that ends too early, because we were killed or pg_restore was, ends without its COMMIT
        if _fed(script, into) and writer.wait() == 0:
            _said(into, b"COMMIT;\n")
        _closed(into)
        said = (_first_error(answers.read()), _first_error(complaints.read()))
    if writer.returncode or reader.returncode:
        raise FilmroomError(f"The database could not be brought back: {' '.join(filter(None, said))}")


def _fed(script: IO[bytes], into: IO[bytes]) -> bool:
    """Pass the script on in a transaction, without settings that this server may not know; False when nobody reads."""
    try:
        into.write(b"BEGIN;\n")
        for _ in range(HEAD_LINES):
            line = script.readline()
            if not UNKNOWN_SETTING.match(line):
                into.write(line)
        shutil.copyfileobj(script, into, 1 << 20)
        into.flush()
    except BrokenPipeError:
        script.close()
        return False
    return True


def _said(into: IO[bytes], words: bytes) -> None:
    with suppress(BrokenPipeError):
        into.write(words)
        into.flush()


def _closed(into: IO[bytes]) -> None:
    with suppress(BrokenPipeError):
        into.close()


def programs(server_version: int) -> Path:
    """The folder of a pg_dump that knows this server (as psycopg numbers it). Raises SettingsError."""
    for folder in _candidates():
        if int(version(folder).partition(".")[0]) >= server_version // 10000:
            return folder
    wanted = server_version // 10000
    raise SettingsError(f"No pg_dump for Postgres {wanted} is here; install postgresql-client-{wanted} and try again.")


def _candidates() -> Iterator[Path]:
    with suppress(SettingsError):  # the embedded servers may not be installed
        yield postgres_program("pg_dump").parent
    on_path = shutil.which("pg_dump")
    if on_path:
        yield Path(on_path).resolve().parent
    for pattern in DISTRIBUTIONS:
        yield from sorted(Path("/").glob(pattern[1:]), reverse=True)


def version(folder: Path) -> str:
    """The version of the programs in a folder; "0" where they do not run."""
    try:
        said = subprocess.run([folder / "pg_dump", "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return "0"
    found = re.search(r"\d+(\.\d+)?", said)
    return found[0] if found else "0"


def _dbname(url: str) -> tuple[str]:
    parts = conninfo_to_dict(url)
    parts.pop("password", None)
    return (f"--dbname={make_conninfo('', **parts)}",)


def _environment(url: str) -> dict[str, str]:
    password = conninfo_to_dict(url).get("password")
    kept = {name: value for name, value in os.environ.items() if name.startswith("PG")}  # as our own driver reads them
    return clean_environment() | kept | ({"PGPASSWORD": str(password)} if password else {})


def _first_error(said: bytes) -> str:
    """The first line that names an error: what follows it may quote rows."""
    lines = said.decode(errors="replace").strip().splitlines()
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "").strip()
