"""Up and down with studies in place, beside readers and senders, and with a migrator that is killed."""

import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import psycopg
import pytest

from pacs.cli.main import main
from pacs.domain.levels import Scope
from pacs.embedded.process import wait_until
from pacs.errors import FilmroomError, Unavailable
from pacs.index import schema
from tests.services.specimens import ct, part10, put, query

REVISIONS = [revision.name for revision in schema.revisions()]
STUDY_LIST = (
    """SELECT attrs::text, modalities, series_count, instance_count, change_seq FROM study ORDER BY study_uid"""
)


@pytest.fixture(scope="module")
def filled(node):
    """What was stored through the one door: bytes by UID."""
    objects = [
        ct(**more) for more in ({}, {"Modality": "MR", "StudyDescription": "Kopf"}, {"PatientName": "Ångström^Åsa"})
    ]
    objects += [ct(objects[0].StudyInstanceUID, objects[0].SeriesInstanceUID) for _ in range(3)]
    assert {put(node, part10(one)).outcome for one in objects} == {"stored"}
    return {one.SOPInstanceUID: part10(one) for one in objects}


def seen(node):
    """All that readers see: bytes by UID, and what study lists are made of."""
    found = {}
    for study, series, uid in query(node, "SELECT study_uid, series_uid, sop_instance_uid FROM held"):
        [instance] = node.retrieve.locate(Scope(study, series, uid))
        with node.files.open(instance) as file:
            found[uid] = file.read()
    return found, query(node, STUDY_LIST)


def listed(node):
    """The studies as QIDO finds them."""
    from pacs.domain.levels import Level
    from pacs.domain.query import Query

    return sorted(str(row) for row in node.search.find(Query(Level.STUDY)).rows)


def test_studies_are_equal_byte_for_byte_at_every_revision_down_and_up(node, settings, filled):
    before, answers = seen(node), listed(node)
    assert before[0] == filled
    assert len(answers) == 3
    try:
        for revision in [*REVISIONS[-2::-1], *REVISIONS[1:]]:
            move = schema.downgrade if revision < schema.current(settings.database_url) else schema.upgrade
            move(settings.database_url, revision)
            assert schema.current(settings.database_url) == revision
            assert seen(node) == before, revision
            assert listed(node) == answers, revision
    finally:
        schema.upgrade(settings.database_url)
    assert put(node, part10(ct())).outcome == "stored"


@contextmanager
def again_and_again(work):
    """Threads that repeat `work` as long as the block lasts; yields what they did and what they raised."""
    stop, done, raised = threading.Event(), [], []

    def run():
        while not stop.is_set():
            try:
                done.append(work())
            except Exception as error:
                raised.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield done, raised
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_reading_and_storing_go_on_while_the_schema_changes(node, settings, filled):
    with (
        again_and_again(lambda: len(listed(node))) as (read, failed),
        again_and_again(lambda: put(node, part10(ct())).outcome) as (stored, refused),
    ):
        for target in (REVISIONS[0], REVISIONS[-1]):
            move = schema.downgrade if target == REVISIONS[0] else schema.upgrade
            so_far = len(read), len(stored)
            move(settings.database_url, target)
            assert wait_until(lambda so_far=so_far: len(read) > so_far[0] and len(stored) > so_far[1], 30)
    assert (failed, refused, set(stored)) == ([], [], {"stored"})
    assert node.wholeness.check(_unmetered).whole


def _unmetered(_what, _total):
    from contextlib import nullcontext
    from types import SimpleNamespace

    return nullcontext(SimpleNamespace(step=lambda count=1: None))


@pytest.fixture
def below(settings):
    """The module's database, far below the head, and back at the head afterwards."""
    schema.downgrade(settings.database_url, REVISIONS[2])
    yield settings.database_url
    schema.upgrade(settings.database_url)


def waits(url):
    """Whether a migration waits for a lock."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            """SELECT count(*) FROM pg_locks waiting JOIN pg_locks held USING (pid)
               WHERE NOT waiting.granted AND held.locktype = 'advisory' AND held.granted"""
        ).fetchone() != (0,)


def test_a_long_reader_in_the_way_stops_nobody_else_and_the_upgrade_ends_after_it(node, filled, below):
    answers = listed(node)
    with psycopg.connect(below) as reader:
        reader.execute("LOCK TABLE audit IN ACCESS SHARE MODE; SELECT count(*) FROM study")
        upgrade = threading.Thread(target=schema.upgrade, args=(below,))
        upgrade.start()
        assert wait_until(lambda: waits(below) or not upgrade.is_alive(), 60)
        for _ in range(5):
            assert listed(node) == answers
            assert put(node, part10(ct())).outcome == "stored"
            answers = listed(node)
    upgrade.join(60)
    assert schema.current(below) == REVISIONS[-1]


def test_an_upgrade_that_is_killed_half_way_leaves_the_old_schema_whole(node, filled, below):
    before = seen(node)[0]
    script = f"from pacs.index import schema; schema.upgrade({below!r})"
    with psycopg.connect(below) as reader:
        reader.execute("LOCK TABLE audit IN ACCESS EXCLUSIVE MODE")  # revision 0005 wants it
        process = subprocess.Popen([sys.executable, "-c", script])
        assert wait_until(lambda: waits(below), 60)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert schema.current(below) == REVISIONS[2]
    with psycopg.connect(below) as connection:
        assert connection.execute("SELECT to_regclass('account'), to_regclass('audit_seal')").fetchone() == (None, None)
    assert seen(node)[0] == before
    schema.upgrade(below)
    assert schema.current(below) == REVISIONS[-1]
    assert before.items() <= seen(node)[0].items()


def test_tables_that_stay_in_use_are_one_sentence(below, monkeypatch):
    plain = schema._alembic

    def impatient(url):
        config = plain(url)
        config.attributes["attempts"] = 1
        return config

    monkeypatch.setattr(schema, "_alembic", impatient)
    with psycopg.connect(below) as reader:
        reader.execute("LOCK TABLE audit IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="in use all the time"):
            schema.upgrade(below)
    assert schema.current(below) == REVISIONS[2]


def test_a_revision_that_fails_is_one_sentence_and_changes_nothing(below):
    with psycopg.connect(below) as connection:
        connection.execute("CREATE TABLE account (mine integer)")
    try:
        with pytest.raises(FilmroomError, match=r"a revision failed \(relation .account. already exists\)"):
            schema.upgrade(below)
        assert schema.current(below) == REVISIONS[2]
    finally:
        with psycopg.connect(below) as connection:
            connection.execute("DROP TABLE account")


def test_a_process_that_meets_a_newer_schema_says_so_and_ends(empty_database_url, home, redis_url):
    schema.upgrade(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    env = {"FILMROOM_HOME": str(home), "FILMROOM_CONFIG": "/dev/null", "DATABASE_URL": empty_database_url,
           "REDIS_URL": redis_url, "HTTP_PORT": "0", "WEB_PORT": "0", "DICOM_PORT": "0"}  # fmt: skip
    for words in (["serve", "web"], ["serve"], ["db", "downgrade"], ["backup", "x"]):
        done = subprocess.run(
            [sys.executable, "-m", "pacs", *words], env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, "9999, which is newer" in done.stderr) == (1, True), (words, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.fixture
def typed(monkeypatch, capsys):
    """Type a command against a database; its exit code and what it said on standard error."""

    def run(url, *words):
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("REDIS_URL", "redis://unused")
        monkeypatch.setenv("FILMROOM_CONFIG", "/dev/null")
        return main(words), capsys.readouterr().err

    return run


def test_a_downgrade_that_would_lose_the_index_asks_to_be_meant(typed, node, settings, filled):
    for words in (("base",), ("-99",), ("-" + str(len(REVISIONS)),)):
        code, said = typed(settings.database_url, "db", "downgrade", *words)
        assert (code, "instances are stored" in said) == (1, True)
    assert schema.current(settings.database_url) == REVISIONS[-1]
    assert schema.stored(settings.database_url) >= len(filled)


def test_an_empty_database_goes_down_to_base(typed, empty_database_url):
    schema.upgrade(empty_database_url, REVISIONS[1])
    assert typed(empty_database_url, "db", "downgrade", "base", "--quiet") == (0, "")
    assert schema.current(empty_database_url) is None


@pytest.mark.parametrize("words", [("upgrade", "nonsense"), ("downgrade", "nonsense"), ("upgrade", "0001")])
def test_a_revision_that_is_not_there_is_one_sentence(typed, settings, node, filled, words):
    code, said = typed(settings.database_url, "db", *words)
    assert schema.current(settings.database_url) == REVISIONS[-1]
    if words[-1] == "nonsense":
        assert (code, said.startswith("filmroom: The schema stays as it is: ")) == (1, True)
        assert said.endswith("see: filmroom db history\n")


@pytest.mark.parametrize("words", [("user", "list"), ("verify",), ("demo", "purge")])
def test_commands_before_the_first_upgrade_name_the_command_that_is_missing(typed, empty_database_url, words):
    code, said = typed(empty_database_url, *words)
    assert (code, said.endswith("run: filmroom db upgrade\n")) == (1, True)
