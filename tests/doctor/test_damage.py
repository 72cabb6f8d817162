"""Damage of every kind is planted, named, cured without a deletion, and not found again."""

import dataclasses
import hashlib
import json
import os
import shutil
import uuid

import pytest
from psycopg.types.json import Jsonb

from pacs.domain.levels import Scope
from pacs.domain.models import Package
from pacs.errors import Refused
from pacs.places import config_folder
from pacs.services.doctor.rounds import CHECKS
from tests.doctor.conftest import names
from tests.jobbooks import Archive, to_run
from tests.services.specimens import SOURCE, ct, part10, put, query

MODEL = ("ct-lung-body", "1.0.0")


@pytest.fixture(scope="module")
def archive(database_url):
    archive = Archive(database_url)
    yield archive
    archive.connection.close()


def sql(node, statement, *parameters):
    with node.pool.connection() as connection:
        connection.execute(statement, parameters)


def stored(node):
    """A stored instance, its file's path, and the row."""
    found = put(node, part10(ct()))
    [row] = node.retrieve.locate(Scope(found.study_uid, found.series_uid, found.sop_instance_uid))
    list(node.derive.ensure([row]))
    return row, node.settings.storage_dir / "objects" / row.object_name


def settle(node):
    """As a clerk leaves a node: everything derived, noted, sealed, and some time ago."""
    sql(node, "UPDATE instance SET stored_at = now() - interval '1 hour'")
    node.relay.note()
    node.relay.publish()
    node.changes.seal()
    node.chain.seal()
    node.reconciler.compare()


def files(settings):
    """Every file of the store, quarantine too, by its content."""
    return sorted(
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in settings.storage_dir.rglob("*")
        if path.is_file() and path.name not in {"manifest.jsonl", "store-id"}
    )


# one function a kind of damage; each gives what must be among the examples


def missing_file(node, archive):
    row, path = stored(node)
    path.rename(node.settings.home / f"away-{uuid.uuid4().hex}")
    return row.sop_instance_uid


def wrong_size(node, archive):
    row, path = stored(node)
    os.truncate(path, row.size - 7)
    return row.sop_instance_uid


def wrong_digest(node, archive):
    row, path = stored(node)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 0x40
    path.write_bytes(raw)
    return row.sop_instance_uid


def stray_file(node, archive):
    path = node.settings.storage_dir / "objects" / "ab" / "cd" / f"stray-{uuid.uuid4().hex}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(100))
    return f"ab/cd/{path.name}"


def empty_file(node, archive):
    path = node.settings.storage_dir / "objects" / "ab" / "cd" / f"blank-{uuid.uuid4().hex}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return f"ab/cd/{path.name}"


def staging_file(node, archive):
    path = node.settings.storage_dir / "tmp" / f"{uuid.uuid4().hex}.part"
    path.write_bytes(os.urandom(50))
    return path.name


def unburied_file(node, archive):
    row, _path = stored(node)
    scope = Scope(row.study_uid)
    node.lifecycle.delete(scope, SOURCE)
    sql(node, "UPDATE tombstone SET made_at = now() - interval '2 hours' WHERE object_name = %s", row.object_name)
    return row.object_name


def conflict_row(node, archive):
    data = ct()
    put(node, part10(data))
    data.PixelData = os.urandom(128)
    with pytest.raises(Refused):
        put(node, part10(data))
    [(name,)] = query(node, "SELECT object_name FROM conflict WHERE sop_instance_uid = %s", str(data.SOPInstanceUID))
    path = node.settings.storage_dir / "conflicts" / name
    path.rename(node.settings.home / f"away-{uuid.uuid4().hex}")
    return str(data.SOPInstanceUID)


def conflict_file(node, archive):
    path = node.settings.storage_dir / "conflicts" / "ab" / f"left-{uuid.uuid4().hex}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(60))
    return path.name


def counters(node, archive):
    row, _path = stored(node)
    sql(node, "UPDATE study SET instance_count = 17, modalities = 'MR' WHERE study_uid = %s", row.study_uid)
    return row.study_uid


def series_counter(node, archive):
    row, _path = stored(node)
    sql(node, "UPDATE series SET instance_count = 0 WHERE series_uid = %s", row.series_uid)
    return row.study_uid


def empty_parents(node, archive):
    study = archive.study(quiet=100)
    archive.sql("DELETE FROM outbox")
    return f"study {study}"


def misfiled(node, archive):
    here, _ = stored(node)
    there, _ = stored(node)
    sql(
        node,
        "UPDATE instance SET study_pk = (SELECT pk FROM study WHERE study_uid = %s) WHERE pk = %s",
        there.study_uid,
        here.pk,
    )
    return here.sop_instance_uid


def underived(node, archive):
    row, _path = stored(node)
    sql(node, "DELETE FROM instance_derived WHERE instance_pk = %s", row.pk)
    return row.sop_instance_uid


def broken_derived(node, archive):
    row, _path = stored(node)
    sql(node, "UPDATE instance_derived SET metadata = 'broken' WHERE instance_pk = %s", row.pk)
    return row.sop_instance_uid


def unsealed_changes(node, archive):
    stored(node)
    last = "(SELECT max(id) FROM change_feed)"
    sql(node, f"UPDATE change_feed SET seq = NULL, at = now() - interval '1 hour' WHERE id = {last}")
    return ""


def stale_finding(node, archive):
    row, _path = stored(node)
    node.findings.add("missing_file", row.object_name, "It was missing.", row.sop_instance_uid)
    return row.object_name


def stuck_outbox(node, archive):
    row, _path = stored(node)
    payload = Jsonb({"study_uid": row.study_uid, "series_uid": row.series_uid, "change_seq": 1})
    sql(node, "INSERT INTO outbox (topic, payload, made_at) VALUES ('stored', %s, now() - interval '1 hour')", payload)
    return "topic stored"


def queued(node, archive):
    row, _path = stored(node)
    node.relay.note()
    (job,) = node.jobs.planning.plan(archive.work(row.study_uid), [to_run()]).queued
    node.relay.publish()
    return job


def stuck_job(node, archive):
    job = queued(node, archive)
    node.jobs.leases.take(job, "dead-worker")
    sql(node, "UPDATE ai_job SET lease_until = now() - interval '1 hour' WHERE id = %s", job)
    return f"job {job} of"


def unheard_job(node, archive):
    job = queued(node, archive)
    for entry in [*node.stream._all("ai:jobs:normal")]:
        if entry.job_id == job:
            node.stream.forget(entry)
    sql(node, "UPDATE ai_job SET queued_at = now() - interval '1 hour' WHERE id = %s", job)
    return f"job {job}"


def missing_result(node, archive):
    node.models.record(Package("lungs", "1.0.0", "d1", "enabled", "/m/lungs"))
    job = queued(node, archive)
    sql(node, "UPDATE ai_job SET state = 'SUCCEEDED', lease_until = NULL WHERE id = %s", job)
    uid = f"2.25.{uuid.uuid4().int}"
    sql(
        node,
        "INSERT INTO ai_result (sop_instance_uid, job_id, role, sop_class_uid, series_uid)"
        " VALUES (%s, %s, 'seg', '', '')",
        uid,
        job,
    )
    return uid


def broken_model(node, archive):
    path = node.settings.home / "models" / "-".join(MODEL[:1]) / MODEL[1]
    shutil.copytree(config_folder() / "models" / MODEL[0] / MODEL[1], path, dirs_exist_ok=True)
    with (path / "model.onnx").open("ab") as file:
        file.write(b"x")
    return str(path)


def invalid_index(node, archive):
    sql(node, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'series_by_uid'::regclass")
    return "series_by_uid"


def schema_object(node, archive):
    sql(node, "DROP INDEX study_by_accession")
    sql(node, "DROP FUNCTION note_conflicts(jsonb[])")
    return "study_by_accession"


def schema_function(node, archive):
    head = "CREATE OR REPLACE FUNCTION merged(list text, more text[]) RETURNS text"
    sql(node, f"{head} LANGUAGE sql AS $$ SELECT list $$")
    return "merged"


PLANTS = (
    missing_file, wrong_size, wrong_digest, stray_file, empty_file, staging_file, unburied_file, conflict_row,
    conflict_file, counters, series_counter, empty_parents, misfiled, underived, broken_derived, unsealed_changes,
    stale_finding, schema_function, stuck_job, unheard_job, missing_result, stuck_outbox, broken_model, invalid_index,
    schema_object,
)  # fmt: skip


def named(plant):
    return {"series_counter": "counters"}.get(plant.__name__, plant.__name__.replace("_", "-"))


@pytest.fixture(autouse=True)
def well(node, settings):
    """A node in order, with something in it."""
    for _ in range(12):
        stored(node)
    (settings.storage_dir / "conflicts").mkdir(exist_ok=True)
    settle(node)


def test_all_that_is_planted_is_named_cured_without_deleting_and_not_found_again(
    node, settings, archive, looked, damage
):
    models = dataclasses.replace(settings, ai_models_dir=(settings.home / "models",))
    assert [one.as_json() for one in looked(damage, settings=models).found] == []
    planted = {plant: plant(node, archive) for plant in PLANTS}
    settle_rest(node)
    before = files(settings)
    report = looked(damage, settings=models)
    assert names(report) == sorted({named(plant) for plant in PLANTS})
    said = json.dumps([one.as_json() for one in report.found])
    for example in planted.values():
        assert example in said
    assert files(settings) == before  # looking changes nothing
    treated = looked(damage, settings=models, fix=True)
    assert {one.check.name: one.failed for one in treated.found if one.failed} == {}
    assert treated.well
    assert files(settings) == before  # nothing was deleted
    assert [one.as_json() for one in looked(damage, settings=models).found] == []
    assert names(looked(damage, settings=models, deep=True)) == []


def settle_rest(node):
    """What was planted last may not stand for what was planted before."""
    sql(node, "UPDATE instance SET stored_at = now() - interval '1 hour'")
    node.chain.seal()


HARMS = {
    "missing": lambda path: path.unlink(),
    "cut": lambda path: os.truncate(path, 5),
    "changed": lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_lost_object_can_be_sent_again_after_the_cure(node, settings, archive, looked, damage, harm):
    data = ct()
    first = put(node, part10(data))
    [row] = node.retrieve.locate(Scope(first.study_uid))
    path = settings.storage_dir / "objects" / row.object_name
    harm(path)
    settle_rest(node)
    assert looked(damage, fix=True).well
    uid = row.sop_instance_uid
    kept = query(node, "SELECT content -> 'study' ->> 'study_uid' FROM quarantined WHERE name = %s", uid)
    assert kept == [(first.study_uid,)]
    audited = "SELECT count(*) FROM audit WHERE action = 'quarantine' AND sop_instance_uid = %s"
    assert query(node, audited, uid) == [(1,)]
    assert put(node, part10(data)).outcome == "stored"
    list(node.derive.ensure(node.retrieve.locate(Scope(first.study_uid))))


def test_a_right_copy_in_quarantine_is_put_back(node, settings, archive, looked, damage):
    row, path = stored(node)
    content = path.read_bytes()
    node.store.move(row.object_name, "objects", "quarantine")
    report = looked(damage, fix=True)
    assert names(report) == ["missing-file"]
    assert "put back" in report.found[0].done
    assert path.read_bytes() == content
    assert node.retrieve.locate(Scope(row.study_uid))


def test_a_disk_that_is_not_mounted_empties_no_index(node, settings, archive, looked, damage):
    objects = settings.storage_dir / "objects"
    away = settings.home / "unmounted"
    objects.rename(away)
    try:
        objects.mkdir(mode=0o700)
        total = query(node, "SELECT count(*) FROM instance")
        report = looked(damage, fix=True)
        (lost,) = [one for one in report.found if one.check.name == "missing-file"]
        assert "mounted" in lost.failed
        assert "--accept-loss" in lost.failed
        assert query(node, "SELECT count(*) FROM instance") == total
    finally:
        objects.rmdir()
        away.rename(objects)
    assert names(looked(damage)) == []


def test_an_object_deleted_while_the_doctor_looks_is_no_damage(node, looked, monkeypatch):
    row, path = stored(node)
    real = node.store.entry

    def entry(name, place="objects"):
        if name == row.object_name and path.exists():
            sql(node, "DELETE FROM instance WHERE pk = %s", row.pk)
            path.unlink()
        return real(name, place)

    monkeypatch.setattr(node.store, "entry", entry)
    report = looked([check for check in CHECKS if check.name == "missing-file"])
    assert report.well
    sql(node, "SELECT prune(ARRAY(SELECT pk FROM study WHERE study_uid = %s))", row.study_uid)


def test_objects_under_way_are_no_damage(node, settings, archive, looked, damage):
    small, large = node.ingest.begin(SOURCE), node.ingest.begin(SOURCE)
    small.write(part10(ct()))
    large.write(part10(ct(PixelData=os.urandom(9_000_000), Rows=1500, Columns=3000)))
    draft = node.store.draft()
    draft.write(b"published and not yet named by a row")
    draft.publish()
    assert names(looked(damage)) == []
    draft.discard()
    small.abort()
    large.abort()


def test_an_edited_audit_row_is_named(node, settings, archive, looked, damage):
    row, _path = stored(node)
    settle(node)
    sql(node, "ALTER TABLE audit DISABLE TRIGGER audit_append_only")
    sql(node, "UPDATE audit SET actor = 'nobody' WHERE study_uid = %s", row.study_uid)
    report = looked(damage)
    assert names(report) == ["audit-chain"]
    assert "edited" in report.found[0].finding.what
    sql(node, "UPDATE audit SET actor = 'tester' WHERE study_uid = %s", row.study_uid)
    sql(node, "ALTER TABLE audit ENABLE ALWAYS TRIGGER audit_append_only")


def test_a_gap_in_the_change_feed_is_named(node, settings, archive, looked, damage):
    stored(node)
    node.changes.seal()
    sql(node, "DELETE FROM change_feed WHERE seq = (SELECT max(seq) - 1 FROM change_feed)")
    assert "feed-gaps" in names(looked(damage))
    sql(node, "DELETE FROM change_feed")
