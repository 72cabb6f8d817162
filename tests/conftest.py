"""What tests stand on: one real Postgres and Valkey for the session, a database and a home for each module."""

import dataclasses
import itertools
import os
import shutil
import sys
import tempfile
import threading
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import structlog
from psycopg import sql

from pacs.embedded.servers import Servers
from pacs.index import schema
from pacs.settings import Settings, load

if TYPE_CHECKING:
    from pacs.node import Node
    from tests.running import RunningNode

TEMPLATE = "filmroom_template"


@pytest.fixture(autouse=True)
def log_of_this_test() -> Iterator[None]:
    """Where a test sends the log holds for that test: its stream is closed afterwards, and threads go on logging."""
    hooks = sys.excepthook, threading.excepthook
    yield
    structlog.reset_defaults()
    sys.excepthook, threading.excepthook = hooks


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="fr-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(short_folder: Path) -> Iterator[Servers]:
    """Both embedded servers, for the whole session."""
    running = Servers(short_folder / "servers")
    running.start()
    yield running
    running.stop()


def _named(url: str, database: str) -> str:
    """The URL of another database on the same server."""
    return url.replace("/filmroom?", f"/{database}?", 1)


@pytest.fixture(scope="session")
def template_database(servers: Servers) -> str:
    """The URL of the server, which by then has a migrated template to clone from."""
    url = servers.members[0].url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    schema.upgrade(_named(url, TEMPLATE))
    return url


def _create_database(url: str, template: str = "template0") -> str:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as connection:
        statement = "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy"
        connection.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Identifier(template)))
    return _named(url, name)


@pytest.fixture(scope="module")
def database_url(template_database: str) -> str:
    """A fresh database at the head, for one test module."""
    return _create_database(template_database, TEMPLATE)


@pytest.fixture
def empty_database_url(servers: Servers) -> str:
    """A fresh database without a schema."""
    return _create_database(servers.members[0].url)


@pytest.fixture(scope="session")
def _redis_numbers() -> Iterator[int]:
    return itertools.cycle(range(1, 16))


@pytest.fixture(scope="module")
def redis_url(servers: Servers, _redis_numbers: Iterator[int]) -> str:
    """An empty database number of the Valkey, for one test module."""
    import redis

    url = servers.members[1].url.replace("db=0", f"db={next(_redis_numbers)}")
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="session")
def seed_home(short_folder: Path) -> Path:
    """A home whose servers were made, migrated and stopped: copies of it start in no time."""
    made = Servers(short_folder / "seed")
    made.start()
    schema.upgrade(made.members[0].url)
    made.stop()
    return short_folder / "seed"


@pytest.fixture(scope="module")
def home(short_folder: Path) -> Iterator[Path]:
    """An empty home with a short path."""
    folder = short_folder / uuid.uuid4().hex[:8]
    folder.mkdir(mode=0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def settings(home: Path, database_url: str, redis_url: str) -> Settings:
    """Defaults on a home and servers of this module's own; any free port; nothing of the caller's environment."""
    return dataclasses.replace(
        load({"FILMROOM_HOME": str(home), "FILMROOM_CONFIG": os.devnull}),
        database_url=database_url,
        redis_url=redis_url,
        http_port=0,
        web_port=0,
        dicom_port=0,
        disk_reserve_gb=0.0,
        ai_series_quiet_seconds=1.0,
        ai_study_quiet_seconds=2.0,
    )


@pytest.fixture(scope="module")
def node(settings: Settings) -> "Iterator[Node]":
    """A built node on this module's home and servers."""
    from pacs.node import build

    built = build(settings, component="test")
    yield built
    built.close()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real files; tests that ask for it also carry the mark `data`."""
    if not os.environ.get("FILMROOM_TEST_DATA"):
        pytest.skip("FILMROOM_TEST_DATA names no folder of real files")
    return Path(os.environ["FILMROOM_TEST_DATA"])


@pytest.fixture(scope="session")
def running_node(short_folder: Path) -> "Iterator[RunningNode]":
    """A whole node in processes of its own, for the session: use `http_url`, `dicom_port`, `settings`."""
    from tests.running import RunningNode

    node = RunningNode(short_folder / "running").start()
    yield node
    node.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """In CI a test that needs an outside tool, or data that is there, may not be skipped."""
    report = yield
    due = item.get_closest_marker("interop") or (
        item.get_closest_marker("data") and os.environ.get("FILMROOM_TEST_DATA")
    )
    if os.environ.get("FILMROOM_CI") and report.skipped and due:
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure in CI: {report.longrepr[-1]}"
    return report
