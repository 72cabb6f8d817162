"""A backup while four senders store, the node wiped, the backup restored elsewhere: what was acknowledged is there."""

import json
import random
import shutil
import subprocess
import sys
import threading
import time

import pytest

from tests.bench.servers import free_port
from tests.torture.ledger import Ledger, Sender, by_dimse, by_stow, digest
from tests.torture.stand import Stand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LOAD_SECONDS = 12


def filmroom(stand, *words):
    """Type a command as the operator of that node; what it says when it ends well."""
    line = [sys.executable, "-m", "pacs", *map(str, words)]
    done = subprocess.run(line, env=stand.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def ports():
    return {name: free_port() for name in ("HTTP_PORT", "WEB_PORT", "DICOM_PORT")}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What was acknowledged before the backup began (digests by UID), and the folder of the backup."""
    ledger, stop = Ledger(), threading.Event()
    folder = tmp_path_factory.mktemp("saved")
    folder.chmod(0o711)
    with Stand(folder, ports()) as stand:
        senders = [
            Sender(
                ledger,
                f"{kind}-{number}",
                stop,
                by_dimse(stand.dicom_port) if kind == "dimse" else by_stow(stand.http_port),
            )
            for kind in ("dimse", "stow")
            for number in range(2)
        ]
        for sender in senders:
            sender.start()
        time.sleep(LOAD_SECONDS)
        filmroom(stand, "backup", folder / "backup")  # what the next one finds there
        time.sleep(LOAD_SECONDS)
        with ledger.lock:
            before = {uid: ledger.sent[uid] for uid in ledger.accepted}
        report = json.loads(filmroom(stand, "backup", folder / "backup", "--json"))
        stop.set()
        for sender in senders:
            sender.join(60)
        assert len(ledger.accepted) > len(before)
    assert (report["damaged"], report["gone"]) == ([], [])
    assert report["kept"] > 0
    shutil.rmtree(folder / "home")
    return before, folder / "backup"


@pytest.fixture(scope="module")
def restored(saved, tmp_path_factory):
    """A node elsewhere that was restored, and what the restore said."""
    folder = tmp_path_factory.mktemp("restored")
    folder.chmod(0o711)
    stand = Stand(folder, ports())
    said = filmroom(stand, "restore", saved[1])
    with stand:
        yield stand, said


def test_everything_acknowledged_before_the_backup_is_there_byte_for_byte(saved, restored):
    before, (stand, _said) = saved[0], restored
    assert len(before) > 100
    shown = {row["00080018"]["Value"][0]: row for row in stand.qido("/instances?limit=100000")}
    assert before.keys() <= shown.keys()
    assert {uid: digest(stand.wado(shown[uid])) for uid in before} == before


def test_restore_ends_with_verify_and_finds_nothing(restored):
    stand, said = restored
    assert ", 0 missing, 0 orphans, digests equal" in said
    found = json.loads(filmroom(stand, "verify", "--json"))
    assert (found["whole"], found["missing"], found["orphans"], found["changed"]) == (True, 0, 0, 0)


def test_counts_are_exact_and_the_node_stores_and_finds(restored):
    stand, _said = restored
    for study in stand.qido("/studies?limit=10000"):
        uid = study["0020000D"]["Value"][0]
        assert study["00201208"]["Value"] == [len(stand.qido(f"/studies/{uid}/instances?limit=10000"))]
    filmroom(stand, "smoke")


def test_a_changed_byte_is_named(saved, tmp_path_factory):
    files = [path for path in saved[1].rglob("*") if path.is_file() and path.stat().st_size]
    stand = Stand(tmp_path_factory.mktemp("nowhere"), ports())
    stand.folder.chmod(0o711)
    for victim in random.sample(files, 5):
        whole = victim.read_bytes()
        at = random.randrange(len(whole))
        victim.write_bytes(whole[:at] + bytes([whole[at] ^ 0x80]) + whole[at + 1 :])
        for words in (("restore", saved[1]), ("verify", "--backup", saved[1])):
            line = [sys.executable, "-m", "pacs", *map(str, words)]
            done = subprocess.run(line, env=stand.environment, capture_output=True, text=True, check=False)
            assert (done.returncode, victim.name in done.stderr) == (1, True), done.stderr
        victim.write_bytes(whole)
    assert not (stand.folder / "home" / "storage" / "dicom" / "objects").exists()
