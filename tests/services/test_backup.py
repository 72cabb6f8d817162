"""Saving, checking, bringing back: on a real database and a real store."""

import dataclasses
import os
import random
import shutil
import subprocess
import threading
import uuid
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest

from pacs.domain.levels import Scope
from pacs.errors import Conflict, Damaged, FilmroomError
from pacs.index import schema
from pacs.node import build
from pacs.services import backup_database, backup_manifest, lifecycle, restore
from pacs.services.backup_manifest import SUMS
from tests.services.specimens import SOURCE, bare, ct, part10, put, query


class Counted:
    """A meter that a test looks into, and that calls back at the first step."""

    def __init__(self, first=lambda: None):
        self.first, self.counts = first, {}

    def __call__(self, what, total):
        self.counts[what] = 0
        self.what = what
        return nullcontext(self)

    def step(self, count=1):
        self.first()
        self.first = lambda: None
        self.counts[self.what] += count


@pytest.fixture
def folder(short_folder):
    made = short_folder / f"bk-{uuid.uuid4().hex[:8]}"
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def elsewhere(settings, empty_database_url, short_folder):
    """A node on an empty home and an empty database."""
    home = short_folder / uuid.uuid4().hex[:8]
    home.mkdir(mode=0o711)
    built = build(
        dataclasses.replace(settings, filmroom_home=home, database_url=empty_database_url), component="restore"
    )
    yield built
    built.close()
    shutil.rmtree(home, ignore_errors=True)


def kept(node, uid):
    """The bytes of an instance as readers get them; None where it is not found."""
    rows = query(node, "SELECT study_uid, series_uid FROM held WHERE sop_instance_uid = %s", uid)
    if not rows:
        return None
    [instance] = node.retrieve.locate(Scope(*rows[0], uid))
    with node.files.open(instance) as file:
        return file.read()


def stored(node, count=3):
    """So many instances of one study, by UID."""
    first = ct()
    objects = [ct(first.StudyInstanceUID, first.SeriesInstanceUID) for _ in range(count)]
    for one in objects:
        assert put(node, part10(one)).outcome == "stored"
    return {one.SOPInstanceUID: part10(one) for one in objects}


def path_of(settings, node, uid):
    [(name,)] = query(node, "SELECT object_name FROM instance WHERE sop_instance_uid = %s", uid)
    return settings.storage_dir / "objects" / name


def test_what_was_acknowledged_before_comes_back_while_others_store(node, folder, elsewhere):
    before, stop, acked = stored(node, 20), threading.Event(), []

    def send():
        while not stop.is_set():
            acked.append(put(node, part10(ct())).outcome)

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    report = node.backup.run(folder, Counted())
    stop.set()
    for sender in senders:
        sender.join()
    assert acked
    assert not report.damaged
    assert not report.gone
    elsewhere.restore.run(folder, Counted())
    assert {uid: kept(elsewhere, uid) for uid in before} == before
    found = elsewhere.wholeness.check(Counted())
    assert (found.whole, found.instances, found.checked) == (True, report.instances, report.instances)
    assert schema.current(elsewhere.settings.database_url) == schema.head()
    assert put(elsewhere, part10(ct())).outcome == "stored"


def test_sha256sum_finds_every_file_as_it_was_written(node, folder, settings):
    odd = settings.home / "models" / "a b" / "back\\slash"
    odd.parent.mkdir(parents=True, exist_ok=True)
    odd.write_bytes(b"model")
    stored(node)
    node.backup.run(folder, Counted())
    line = ["sha256sum", "--check", "--quiet", "--strict", SUMS]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    listed = {line.removeprefix("\\")[66:] for line in (folder / SUMS).read_text().splitlines()[:-1]}
    assert any("back\\\\slash" in name for name in listed)
    found = {str(path.relative_to(folder)).replace("\\", "\\\\") for path in folder.rglob("*") if path.is_file()}
    assert found - listed == {SUMS, ".filmroom-backup"}
    odd.unlink()


@pytest.mark.parametrize("which", ["objects/", "/database.dump", "/backup.json"])
def test_a_changed_byte_is_named_and_nothing_is_written(node, folder, elsewhere, which):
    stored(node)
    node.backup.run(folder, Counted())
    victim = random.choice([path for path in backup_manifest.read(folder).sums if which in path])
    raw = bytearray((folder / victim).read_bytes())
    raw[random.randrange(len(raw))] ^= 1
    (folder / victim).write_bytes(raw)
    with pytest.raises(Damaged, match=victim.rpartition("/")[2]):
        elsewhere.restore.run(folder, Counted())
    assert schema.current(elsewhere.settings.database_url) is None
    assert not list(elsewhere.settings.storage_dir.rglob("*"))


def test_any_changed_byte_of_the_list_is_noticed(node, folder):
    stored(node, 1)
    node.backup.run(folder, Counted())
    whole = (folder / SUMS).read_bytes()
    for at in random.sample(range(len(whole)), 50):
        (folder / SUMS).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(Damaged, match=SUMS):
            backup_manifest.read(folder)
    (folder / SUMS).write_bytes(whole[:-70])
    with pytest.raises(Damaged, match=SUMS):
        backup_manifest.read(folder)


def test_a_missing_file_is_named(node, folder, elsewhere):
    stored(node)
    node.backup.run(folder, Counted())
    victim = random.choice([path for path in backup_manifest.read(folder).sums if path.startswith("objects/")])
    (folder / victim).unlink()
    with pytest.raises(Damaged, match=f"{victim} is missing"):
        elsewhere.restore.run(folder, Counted())


def test_a_live_system_is_not_restored_over(node, folder, elsewhere):
    before = stored(node, 1)
    node.backup.run(folder, Counted())
    with pytest.raises(Conflict, match="Processes of a node use this database"):
        node.restore.run(folder, Counted())
    elsewhere.restore.run(folder, Counted())
    with pytest.raises(Conflict, match=r"is not empty: .*rows in table instance.*files in .*objects"):
        elsewhere.restore.run(folder, Counted())
    assert {uid: kept(elsewhere, uid) for uid in before} == before


def test_folders_that_are_no_place_for_a_backup_are_refused(node, settings, folder):
    stored(node, 1)
    for inside in (settings.storage_dir / "backup", settings.home, settings.home / "postgres" / "x"):
        with pytest.raises(Conflict):
            node.backup.run(inside, Counted())
        assert not (inside / ".filmroom-backup").exists()
    folder.mkdir()
    (folder / "letter").write_text("mine")
    with pytest.raises(Conflict, match="holds other files"):
        node.backup.run(folder, Counted())
    assert os.listdir(folder) == ["letter"]
    with pytest.raises(Conflict, match="is not a folder"):
        node.backup.run(folder / "letter", Counted())


def test_the_next_backup_copies_what_is_new_and_drops_what_was_deleted(node, folder, elsewhere):
    old = stored(node)
    first = node.backup.run(folder, Counted())
    new = stored(node, 2)
    [study] = {row[0] for row in query(node, "SELECT study_uid FROM held WHERE sop_instance_uid = ANY(%s)", list(old))}
    paths = {path_of(node.settings, node, uid).relative_to(node.settings.storage_dir) for uid in old}
    node.lifecycle.delete(Scope(study), SOURCE)
    second = node.backup.run(folder, Counted())
    assert (second.copied, second.kept) == (2, first.instances - 3)
    assert not any((folder / path).exists() for path in paths)
    assert len([path for path in folder.iterdir() if path.name[0].isdigit()]) == 1
    elsewhere.restore.run(folder, Counted())
    assert {uid: kept(elsewhere, uid) for uid in (*old, *new)} == {**dict.fromkeys(old), **new}


def test_a_backup_that_was_cut_off_is_refused_by_restore_and_finished_by_the_next(node, folder, elsewhere):
    stored(node)
    report = node.backup.run(folder, Counted())
    (folder / SUMS).unlink()
    half = next(path for path in (folder / "objects").rglob("*") if path.is_file())
    half.write_bytes(bytes(half.stat().st_size))  # its name reached the disk, its bytes did not
    with pytest.raises(FilmroomError, match="was not finished"):
        elsewhere.restore.run(folder, Counted())
    again = node.backup.run(folder, Counted())
    assert (again.copied, again.kept) == (1, report.instances - 1)
    restore.check(backup_manifest.read(folder), Counted())


def test_a_damaged_object_is_named_and_the_whole_copy_of_an_earlier_backup_stays(node, settings, folder, short_folder):
    [(uid, data)] = stored(node, 1).items()
    node.backup.run(folder, Counted())
    path = path_of(settings, node, uid)
    path.write_bytes(bytes(len(data)))
    assert not node.backup.run(folder, Counted()).damaged
    name = path.relative_to(settings.storage_dir)
    assert (folder / name).read_bytes() == data
    fresh = short_folder / uuid.uuid4().hex[:8]
    report = node.backup.run(fresh, Counted())
    assert report.damaged == [str(name)]
    assert not (fresh / name).exists()
    path.unlink()
    assert node.backup.run(fresh, Counted()).damaged == [str(name)]
    path.write_bytes(data)
    shutil.rmtree(fresh)


def test_lost_and_changed_objects_are_put_back_into_a_living_store(node, settings, folder):
    whole = stored(node)
    node.backup.run(folder, Counted())
    late = stored(node, 1)
    lost, changed, late_path = (path_of(settings, node, uid) for uid in (*list(whole)[:2], *late))
    lost.unlink()
    changed.write_bytes(bytes(changed.stat().st_size))
    late_path.rename(late_path.with_suffix(".away"))
    assert node.sweep.missing() == 2
    found = node.wholeness.check(Counted())
    assert {f.sop_instance_uid for f in (*found.missing, *found.changed)} == {*list(whole)[:2], *late}
    absent = node.restore.mend(folder, [*found.missing, *found.changed], node.store, node.findings, Counted())
    assert absent == [str(late_path.relative_to(settings.storage_dir))]
    assert {uid: kept(node, uid) for uid in whole} == whole
    assert (settings.storage_dir / "quarantine" / changed.relative_to(settings.storage_dir / "objects")).exists()
    late_path.with_suffix(".away").rename(late_path)
    assert node.sweep.missing() == 0
    assert node.wholeness.check(Counted()).whole


def test_nothing_is_unlinked_while_a_backup_runs(node, settings, folder, elsewhere):
    kept_uids = stored(node)
    [study] = {r[0] for r in query(node, "SELECT study_uid FROM held WHERE sop_instance_uid = ANY(%s)", [*kept_uids])}
    paths = [path_of(settings, node, uid) for uid in kept_uids]
    buried = []

    def meanwhile():
        node.lifecycle.delete(Scope(study), SOURCE)
        buried.append(node.lifecycle.bury(grace_seconds=0))

    node.backup.run(folder, Counted(meanwhile))
    assert (buried, [path.exists() for path in paths]) == ([0], [True] * 3)
    assert node.lifecycle.bury(grace_seconds=0) >= 3
    assert not any(path.exists() for path in paths)
    assert lifecycle.GRACE_SECONDS >= 600
    elsewhere.restore.run(folder, Counted())
    assert {uid: kept(elsewhere, uid) for uid in kept_uids} == kept_uids


def test_what_vanished_while_a_backup_ran_does_not_come_back(node, settings, folder, elsewhere):
    gone, there = stored(node), stored(node)
    [study] = {row[0] for row in query(node, "SELECT study_uid FROM held WHERE sop_instance_uid = ANY(%s)", list(gone))}
    paths = [path_of(settings, node, uid) for uid in gone]

    def meanwhile():
        node.lifecycle.delete(Scope(study), SOURCE)
        for path in paths:
            path.unlink()

    report = node.backup.run(folder, Counted(meanwhile))
    assert len(report.gone) == 3
    assert elsewhere.restore.run(folder, Counted()).gone == 3
    assert {uid: kept(elsewhere, uid) for uid in (*gone, *there)} == {**dict.fromkeys(gone), **there}
    assert elsewhere.wholeness.check(Counted()).whole


def test_conflicts_come_back_and_can_be_decided(node, folder, elsewhere):
    mine = ct()
    put(node, part10(mine))
    other = ct(mine.StudyInstanceUID, mine.SeriesInstanceUID, SOPInstanceUID=mine.SOPInstanceUID)
    with pytest.raises(FilmroomError):
        put(node, part10(other))
    assert not node.backup.run(folder, Counted()).damaged
    elsewhere.restore.run(folder, Counted())
    [conflict] = [c for c in elsewhere.conflicts.list() if c["sop_instance_uid"] == mine.SOPInstanceUID]
    elsewhere.conflicts.resolve(conflict["id"], "replaced", SOURCE)
    assert kept(elsewhere, mine.SOPInstanceUID).endswith(bare(other))


def test_models_results_and_configuration_are_put_where_nothing_is(node, settings, folder, elsewhere):
    for base, word in ((settings.home, b"saved"), (elsewhere.settings.home, b"here")):
        (base / "models" / "lung").mkdir(parents=True, exist_ok=True)
        (base / "models" / "lung" / "shared").write_bytes(word)
    (settings.home / "models" / "lung" / "model.onnx").write_bytes(b"network")
    settings.results_dir.mkdir(exist_ok=True)
    (settings.results_dir / "work").write_bytes(b"work")
    node.backup.run(folder, Counted())
    report = elsewhere.restore.run(folder, Counted())
    there = elsewhere.settings.home / "models" / "lung"
    assert ((there / "model.onnx").read_bytes(), (there / "shared").read_bytes()) == (b"network", b"here")
    assert (elsewhere.settings.results_dir / "work").read_bytes() == b"work"
    assert report.left == [str(there / "shared")]


def test_a_backup_of_an_older_revision_is_brought_to_the_head(node, settings, folder, elsewhere):
    before = stored(node)
    old = schema.revisions()[2].name
    schema.downgrade(settings.database_url, old)
    try:
        node.backup.run(folder, Counted())
    finally:
        schema.upgrade(settings.database_url)
    assert backup_manifest.read(folder).about().revision == old
    elsewhere.restore.run(folder, Counted())
    assert schema.current(elsewhere.settings.database_url) == schema.head()
    assert {uid: kept(elsewhere, uid) for uid in before} == before


def rewritten(folder, **facts):
    """The backup with other facts and right digests."""
    manifest = backup_manifest.read(folder)
    about = dataclasses.replace(manifest.about(), **facts).as_json()
    path = f"{manifest.generation}/backup.json"
    (folder / path).write_bytes(about)
    reseal(folder, path)


def reseal(folder, path):
    manifest = backup_manifest.read(folder)
    with (folder / path).open("rb", buffering=0) as file:
        manifest.sums[path] = backup_manifest.sha256_of(file).hex()
    backup_manifest.write(folder, sorted(manifest.sums.items()))


def test_a_backup_of_a_newer_version_is_refused_before_anything_is_written(node, folder, elsewhere):
    stored(node, 1)
    node.backup.run(folder, Counted())
    rewritten(folder, revision="9999")
    with pytest.raises(schema.SchemaMismatch, match="9999, which is newer"):
        elsewhere.restore.run(folder, Counted())
    assert not list(elsewhere.settings.storage_dir.rglob("*"))


def test_a_dump_that_ends_too_early_changes_nothing_and_the_restore_can_be_repeated(node, folder, elsewhere):
    before = stored(node)
    node.backup.run(folder, Counted())
    dump = next(folder.glob("2*/database.dump"))
    whole = dump.read_bytes()
    dump.write_bytes(whole[: len(whole) * 3 // 4])
    reseal(folder, str(dump.relative_to(folder)))
    with pytest.raises(FilmroomError, match="could not be brought back"):
        elsewhere.restore.run(folder, Counted())
    with psycopg.connect(elsewhere.settings.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    dump.write_bytes(whole)
    reseal(folder, str(dump.relative_to(folder)))
    (elsewhere.settings.home / restore.UNDERWAY).write_text(restore.file_digest(folder / SUMS))  # cut off by a kill
    elsewhere.restore.run(folder, Counted())
    assert {uid: kept(elsewhere, uid) for uid in before} == before
    assert not (elsewhere.settings.home / restore.UNDERWAY).exists()


def test_two_backups_into_one_folder_do_not_run_at_once(node, folder):
    stored(node, 1)
    refused = []

    def meanwhile():
        with pytest.raises(Conflict, match="Another backup"):
            node.backup.run(folder, Counted())
        refused.append(True)

    node.backup.run(folder, Counted(meanwhile))
    assert refused


def test_a_full_disk_is_said_before_anything_is_copied(node, folder, monkeypatch):
    stored(node, 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 1 << 30, 1000))
    with pytest.raises(FilmroomError, match=r"GiB free and up to .* are needed"):
        node.backup.run(folder, Counted())
    assert not (folder / "objects").exists()


def test_no_password_stands_on_a_command_line():
    url = "postgresql://me:geheim@db.example:6432/pacs?sslmode=require"
    [argument] = backup_database._dbname(url)
    assert "geheim" not in argument
    assert "host=db.example" in argument
    assert "sslmode=require" in argument
    assert backup_database._environment(url)["PGPASSWORD"] == "geheim"


def test_a_database_without_schema_is_one_sentence(elsewhere, folder):
    with pytest.raises(schema.SchemaMismatch, match="filmroom db upgrade"):
        elsewhere.backup.run(folder, Counted())
    assert not folder.exists()


POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")


@pytest.mark.interop
@pytest.mark.skipif(not POSTGRES_15.exists(), reason="an older Postgres of the distribution")
def test_an_archive_moves_to_an_older_server_and_back(node, folder, elsewhere, tmp_path, older_url, short_folder):
    before = stored(node)
    node.backup.run(folder, Counted())
    home = short_folder / uuid.uuid4().hex[:8]
    home.mkdir(mode=0o711)
    older = build(dataclasses.replace(node.settings, filmroom_home=home, database_url=older_url), component="restore")
    again = short_folder / uuid.uuid4().hex[:8]
    try:
        older.restore.run(folder, Counted())
        assert {uid: kept(older, uid) for uid in before} == before
        older.backup.run(again, Counted())
        elsewhere.restore.run(again, Counted())
        assert {uid: kept(elsewhere, uid) for uid in before} == before
    finally:
        older.close()
        shutil.rmtree(again, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def older_url(short_folder):
    """A database of Postgres 15, which knows fewer settings than the pg_restore that we ship."""
    from pacs.embedded.process import own, service_account, spawn, wait_until

    account, data = service_account(), short_folder / f"pg{uuid.uuid4().hex[:6]}"
    data.mkdir(mode=0o700)
    own(data, account)
    log = (short_folder / "pg15.log").open("ab")
    initdb = [POSTGRES_15 / "initdb", "-D", data / "d", "-U", "filmroom", "-A", "trust", "-E", "UTF8", "--locale=C"]
    assert spawn([*initdb, "--no-sync"], log=log, account=account, env={"PATH": "/usr/bin:/bin"}).wait(120) == 0
    options = ("-c", "listen_addresses=", "-c", f"unix_socket_directories={data}", "-c", "fsync=off")
    server = spawn([POSTGRES_15 / "postgres", "-D", data / "d", *options], log=log, account=account)
    url = f"postgresql://filmroom@/postgres?host={data}"

    def answers():
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        assert wait_until(answers, 30)
        yield url
    finally:
        server.terminate()
        server.wait(30)
        log.close()
