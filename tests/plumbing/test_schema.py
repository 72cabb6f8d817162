"""Migrations on a real Postgres."""

import subprocess
import sys

import psycopg
import pytest

from pacs.index import schema


def test_head_is_what_alembic_calls_head():
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(schema.MIGRATIONS))
    assert script.get_current_head() == schema.head()
    assert [r.revision for r in script.walk_revisions()][::-1] == [r.name for r in schema.revisions()]


def _shape(url):
    with psycopg.connect(url) as connection:
        return connection.execute(
            """SELECT table_name, column_name, data_type FROM information_schema.columns
               WHERE table_schema = 'public' AND table_name <> 'alembic_version'
               UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes
               WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1, 2, 3"""
        ).fetchall()


def test_every_revision_goes_up_down_and_up_to_the_same_schema(empty_database_url):
    shapes = []
    for revision in schema.revisions():
        shapes.append(_shape(empty_database_url))
        schema.upgrade(empty_database_url, revision.name)
        above = _shape(empty_database_url)
        schema.downgrade(empty_database_url)
        assert _shape(empty_database_url) == shapes[-1]
        schema.upgrade(empty_database_url, revision.name)
        assert _shape(empty_database_url) == above
    assert schema.current(empty_database_url) == schema.head()
    schema.downgrade(empty_database_url, "base")
    assert _shape(empty_database_url) == []
    assert schema.current(empty_database_url) is None


def test_several_processes_may_upgrade_at_once(empty_database_url):
    line = [sys.executable, "-c", f"from pacs.index import schema; schema.upgrade({empty_database_url!r})"]
    assert [process.wait() for process in [subprocess.Popen(line) for _ in range(3)]] == [0, 0, 0]
    assert schema.current(empty_database_url) == schema.head()


def test_code_that_meets_a_newer_schema_says_so_and_stops(empty_database_url):
    schema.upgrade(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(schema.SchemaMismatch, match="9999, which is newer"):
        schema.upgrade(empty_database_url)


@pytest.mark.parametrize(("found", "words"), [(None, "no schema yet"), ("9999", "newer than this version")])
def test_a_schema_that_is_not_at_head_is_named_with_the_cure(found, words):
    with pytest.raises(schema.SchemaMismatch, match=words):
        schema.require_head(found)


def test_a_missing_database_is_one_sentence(tmp_path):
    from pacs.errors import Unavailable

    with pytest.raises(Unavailable, match="cannot be reached"):
        schema.current(f"postgresql:///x?host={tmp_path}")
