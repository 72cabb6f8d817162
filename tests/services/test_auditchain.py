"""The audit trail as a chain: what was done to rows and seals behind our back is named."""

import random
import threading
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from pacs.domain.levels import Scope
from pacs.errors import BadRequest
from pacs.node import build
from pacs.services import audit, auditchain
from pacs.services.auditchain import Chain, Head, head_of
from tests.services.specimens import SOURCE, ct, part10, put, query


def write(node, count):
    """Rows of random content, as a store would write them; their numbers."""
    with node.pool.connection() as connection:
        audit.record(
            connection, [audit.row(SOURCE, "read", study_uid=f"1.{random.getrandbits(60)}") for _ in range(count)]
        )
    return [id for (id,) in query(node, "SELECT id FROM audit ORDER BY id DESC LIMIT %s", count)][::-1]


@pytest.fixture
def chain(node):
    """A sealed chain with a few fresh rows at its end."""
    found = Chain(node.pool)
    write(node, 7)
    found.seal()
    return found


def tamper(node, statement, *parameters):
    """What somebody does who owns the database, and is undone at the end of the block."""
    return Tampering(node, statement, parameters)


class Tampering:
    def __init__(self, node, statement, parameters):
        self.node, self.statement, self.parameters = node, statement, parameters

    def __enter__(self):
        with self.node.pool.connection() as connection:
            connection.execute("CREATE TABLE kept_audit AS TABLE audit")
            connection.execute("CREATE TABLE kept_seal AS TABLE audit_seal")
        self._do(self.statement, self.parameters)

    def __exit__(self, *_):
        self._do("DELETE FROM audit", ())
        self._do("DELETE FROM audit_seal", ())
        self._do("INSERT INTO audit OVERRIDING SYSTEM VALUE SELECT * FROM kept_audit", ())
        self._do("INSERT INTO audit_seal SELECT * FROM kept_seal", ())
        self._do("DROP TABLE kept_audit, kept_seal", ())

    def _do(self, statement, parameters):
        with self.node.pool.connection() as connection:
            for table in ("audit", "audit_seal"):
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            connection.execute(statement, parameters)
            for table in ("audit", "audit_seal"):
                connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_append_only")


def test_a_chain_that_nobody_touched_is_whole(node, chain):
    verdict = chain.verify()
    assert (verdict.broken, verdict.unsealed) == (None, 0)
    assert verdict.rows == query(node, "SELECT count(*) FROM audit")[0][0] > 0
    write(node, 3)
    assert chain.verify().unsealed == 3
    assert chain.seal() == 3
    assert chain.verify().unsealed == 0


@pytest.mark.parametrize(
    "column", ["at", "door", "actor", "address", "action", "outcome", "patient_id", "study_uid", "series_uid", "detail"]
)
def test_a_row_edited_in_any_column_is_named(node, chain, column):
    [(victim,)] = query(node, "SELECT id FROM audit ORDER BY random() LIMIT 1")
    value = {"at": "at + interval '1 us'", "detail": "'{\"x\": 1}'"}.get(column, f"{column} || 'x'")
    with tamper(node, f"UPDATE audit SET {column} = {value} WHERE id = %s", victim):
        verdict = chain.verify()
    assert verdict.broken is not None
    assert (verdict.broken.audit_id, verdict.broken.message) == (victim, auditchain.EDITED)
    assert chain.verify().broken is None


def test_a_deleted_row_is_named(node, chain):
    [(victim,)] = query(node, "SELECT id FROM audit ORDER BY random() LIMIT 1")
    with tamper(node, "DELETE FROM audit WHERE id = %s", victim):
        assert chain.verify().broken == auditchain.Broken(victim, auditchain.DELETED)


def test_a_row_deleted_with_its_seal_breaks_the_next(node, chain):
    ids = [id for (id,) in query(node, "SELECT audit_id FROM audit_seal ORDER BY audit_id")]
    place = random.randrange(len(ids) - 1)
    both = "WITH gone AS (DELETE FROM audit WHERE id = %s RETURNING id) DELETE FROM audit_seal USING gone "
    with tamper(node, both + "WHERE audit_id = id", ids[place]):
        assert chain.verify().broken == auditchain.Broken(ids[place + 1], auditchain.EDITED)


def test_a_row_inserted_into_the_past_is_named(node, chain):
    with node.pool.connection() as connection:  # numbers that a rollback left out
        connection.execute("SELECT nextval(pg_get_serial_sequence('audit', 'id'))")
    write(node, 2)
    chain.seal()
    [(gap,)] = query(node, "SELECT max(id) - 2 FROM audit")
    forged = (
        "INSERT INTO audit (id, door, actor, address, action, outcome, patient_id, study_uid, series_uid, "
        "sop_instance_uid) OVERRIDING SYSTEM VALUE VALUES (%s, 'x', 'x', 'x', 'x', 'ok', '', '', '', '')"
    )
    for number in (gap, 0, -5):
        with tamper(node, forged, number):
            assert chain.verify().broken == auditchain.Broken(number, auditchain.INSERTED)


def test_an_exchanged_or_deleted_seal_is_named(node, chain):
    [(victim,)] = query(node, "SELECT audit_id FROM audit_seal ORDER BY audit_id LIMIT 1 OFFSET 3")
    with tamper(node, "UPDATE audit_seal SET hash = sha256('x') WHERE audit_id = %s", victim):
        assert chain.verify().broken == auditchain.Broken(victim, auditchain.EDITED)
    with tamper(node, "DELETE FROM audit_seal WHERE audit_id = %s", victim):
        assert chain.verify().broken == auditchain.Broken(victim, auditchain.INSERTED)


def test_an_end_that_was_cut_off_or_sealed_anew_shows_against_a_head_written_down(node, chain):
    known = chain.verify().head
    last = known.audit_id
    assert chain.verify(known).broken is None
    write(node, 2)
    chain.seal()
    assert chain.verify(head_of(str(known))).broken is None
    cut = "WITH gone AS (DELETE FROM audit WHERE id >= %s) DELETE FROM audit_seal WHERE audit_id >= %s"
    with tamper(node, cut, last, last):
        assert chain.verify().broken is None  # nothing in the database can tell
        assert chain.verify(known).broken == auditchain.Broken(last, auditchain.CUT)
    with tamper(
        node,
        "WITH edited AS (UPDATE audit SET actor = 'x' WHERE id = %s) DELETE FROM audit_seal",
        last,
    ):
        chain.seal()
        assert chain.verify().broken is None
        assert chain.verify(known).broken == auditchain.Broken(last, auditchain.RESEALED)


@pytest.mark.parametrize("text", ["", "12", "12:", "x:00", "12:zz", "12:" + "0" * 63, f"{Head()}"])
def test_what_is_no_head_is_refused(text):
    with pytest.raises(BadRequest):
        head_of(text)


def test_numbers_that_a_rollback_left_out_are_no_gap(node, chain):
    with node.pool.connection() as connection:
        audit.record(connection, [audit.row(SOURCE, "read")] * 3)
        connection.rollback()
    first, *_ = write(node, 2)
    assert chain.seal() == 2
    assert chain.verify().broken is None
    assert query(node, "SELECT count(*) FROM audit WHERE id < %s AND id >= %s", first, first - 3) == [(0,)]


def test_rows_behind_an_open_transaction_wait_and_are_sealed_in_order(node, chain):
    with node.pool.connection() as slow:
        audit.record(slow, [audit.row(SOURCE, "read")])
        later = write(node, 2)
        assert chain.seal(patience=0.1) == 0
        assert chain.verify().unsealed == 2
    assert chain.seal() == 3
    verdict = chain.verify()
    assert (verdict.broken, verdict.unsealed) == (None, 0)
    assert verdict.head.audit_id == later[-1]


def test_sealing_holds_no_writer_up(node, chain):
    with node.pool.connection() as sealing:
        sealing.execute(auditchain.SQL["lock"])
        data = ct()
        put(node, part10(data))  # commits with the sealer's lock held
        assert node.audit.of_study(data.StudyInstanceUID)
    chain.seal()


def test_many_writers_and_sealers_at_once_make_one_whole_chain(node, chain):
    stop = threading.Event()

    def writing():
        for _ in range(30):
            with node.pool.connection() as connection:
                audit.record(connection, [audit.row(SOURCE, "read")] * random.randint(1, 3))
                if random.random() < 0.2:
                    connection.rollback()

    def sealing():
        while not stop.is_set():
            Chain(node.pool).seal()

    writers = [threading.Thread(target=writing) for _ in range(4)]
    sealers = [threading.Thread(target=sealing) for _ in range(2)]
    for thread in (*writers, *sealers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in sealers:
        thread.join()
    chain.seal()
    verdict = chain.verify()
    assert (verdict.broken, verdict.unsealed) == (None, 0)
    assert verdict.rows == query(node, "SELECT count(*) FROM audit")[0][0]


@pytest.mark.parametrize("table", ["audit", "audit_seal"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {}"])
@pytest.mark.parametrize("role", ["origin", "replica"])
def test_rows_and_seals_cannot_be_changed_or_deleted(node, table, statement, role):
    column = {"audit": "actor", "audit_seal": "hash"}[table]
    with node.pool.connection() as connection:
        connection.execute(f"SET LOCAL session_replication_role = {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed"):
            connection.execute(statement.format(table, column, column))
        connection.rollback()


def test_the_role_of_the_shipped_script_may_add_and_not_change(node, settings):
    script = (Path(__file__).parents[2] / "deploy" / "postgres" / "roles.sql").read_text()
    role = f"app_{random.getrandbits(40)}"
    with node.pool.connection() as connection:
        connection.execute(script.replace("filmroom_app", role).encode())
    owner, _, place = settings.database_url.removeprefix("postgresql://").partition("@")
    url = f"postgresql://{role}@{place}"
    try:
        works = build(replace(settings, database_url=url), component="app")
        data = ct()
        put(works, part10(data))
        works.lifecycle.delete(Scope(data.StudyInstanceUID), SOURCE)
        works.audit.note(SOURCE, "read", study_uid=data.StudyInstanceUID)
        works.close()
        assert owner != role
        assert [row["action"] for row in node.audit.of_patient(data.PatientID)] == ["read", "delete", "store"]
        with psycopg.connect(url) as connection:
            for statement in ("UPDATE audit SET actor = ''", "DELETE FROM audit_seal", "TRUNCATE audit"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
                    connection.execute(statement)
                connection.rollback()
    finally:
        with node.pool.connection() as connection:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")
