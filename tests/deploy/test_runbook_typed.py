"""Every command of the runbook, typed in its order beside a running node, does what the text says."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import uuid

import psycopg
import pytest

from pacs.cli.main import main
from pacs.embedded.binaries import postgres_program
from pacs.node import build
from pacs.services.phantom import ChestStudy, files
from tests.deploy import runbook
from tests.running import SERVER_VARIABLES, RunningNode

STUDY = ChestStudy("runbook", "RB-1", "Runbook^Test", slices=3, size=64)
ELSEWHERE = ("Restore", "Migration")  # there the node that was restored is meant
PASSWORDS = {"create-admin", "user create", "user passwd"}
NOT_HERE = ("docker compose ", "deploy/prepare", "install ", "systemctl ", "systemd-sysusers", "journalctl ", "cp ")


class Bench:
    """A node that runs, an empty place to restore to, and what stands for the names of the text."""

    def __init__(self, node, folder, empty, monkeypatch, capsys):
        self.node, self.folder, self.empty = node, folder, empty
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def type(self, line):
        """Type it; exit code and all that it said."""
        self._environment(line)
        text = line.text.removeprefix(" ".join(f"{name}={value}" for name, value in line.env.items())).strip()
        words = self._words(line.words, text)
        if words[0] == "filmroom":
            return self._filmroom(words[1:])
        done = subprocess.run(
            ["sh", "-euc", self._shell(text)], capture_output=True, text=True, check=False, cwd=self.home(line)
        )
        return done.returncode, done.stdout + done.stderr

    def home(self, line):
        return (
            self.folder / "srv"
            if line.heading.startswith(ELSEWHERE) and "--damaged" not in line.text
            else self.node.home
        )

    def _environment(self, line):
        home = self.home(line)
        for name in SERVER_VARIABLES:
            self.monkeypatch.delenv(name, raising=False)
        for name, value in self.node._environment().items():
            if name not in SERVER_VARIABLES:
                self.monkeypatch.setenv(name, value)
        self.monkeypatch.setenv("FILMROOM_HOME", str(home))
        if home != self.node.home:
            self.monkeypatch.setenv("REDIS_URL", self.node.settings.redis_url)
        by_hand = line.heading.endswith("By hand")
        if home != self.node.home or by_hand:
            url = self.empty[by_hand] if home != self.node.home else self.node.settings.database_url
            self.monkeypatch.setenv("DATABASE_URL", url)
        self.monkeypatch.setenv("PATH", f"{postgres_program('pg_dump').parent}:{os.environ['PATH']}")

    def _words(self, words, text):
        people = "boss" if "create-admin" in text else "ada"
        names = {"NAME": people, "ADDRESS": f"{people}@hospital.example", "STUDY": STUDY.study_uid,
                 "FOLDER": str(self.folder / "files")}  # fmt: skip
        return [names.get(word, word).replace("/mnt/backup", str(self.folder / "mnt")) for word in words]

    def _filmroom(self, words):
        if " ".join(words[:2]) in PASSWORDS or words[0] in PASSWORDS:
            words = [*words, "--password-stdin"]
            self.monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse battery staple\n"))
        self.capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code or 0
        return code, "".join(self.capsys.readouterr())

    def _shell(self, text):
        text = text.replace("/mnt/backup", str(self.folder / "mnt"))
        text = text.replace("http://127.0.0.1:8000", self.node.http_url).replace("curl ", "curl -fsS ")
        if not shutil.which("rsync"):
            text = re.sub(r"^rsync -a (\S+)/ (\S+)/$", r"mkdir -p \2 && cp -a \1/. \2/", text)
        return text

    def asked(self, statement, url=""):
        with psycopg.connect(url or self.node.settings.database_url) as connection:
            return connection.execute(statement).fetchall()

    def studies(self):
        return self.asked("SELECT count(*) FROM study")[0][0]


@pytest.fixture(scope="module")
def place(short_folder, servers):
    """A running node with one study, a folder, and two empty databases."""
    from tests.conftest import _create_database

    folder = short_folder / f"rb-{uuid.uuid4().hex[:6]}"
    (folder / "files").mkdir(parents=True)
    (folder / "mnt").mkdir()
    folder.chmod(0o711)
    for number, data in enumerate(files(STUDY)):
        (folder / "files" / f"{number}.dcm").write_bytes(data)
    node = RunningNode(folder / "home", {"AI_STUDY_QUIET_SECONDS": "600"}).start()  # no job runs unless it is asked for
    node.wait(lambda: is_well(node))
    for name in ("models", "results", "config"):
        (node.home / name).mkdir(exist_ok=True)
    (folder / "srv").mkdir(mode=0o711)
    url = servers.members[0].url
    yield node, folder, (_create_database(url), _create_database(url))
    node.stop()
    shutil.rmtree(folder, ignore_errors=True)


def is_well(node):
    """Whether status says so: all processes are there, the sidecar can run models."""
    built = build(node.settings, component="test")
    try:
        return not built.status.now().wrong
    finally:
        built.close()


@pytest.fixture
def bench(place, monkeypatch, capsys):
    return Bench(*place, monkeypatch, capsys)


def key(bench):
    return (bench.node.home / "secret_key").read_text()


# what must be true before a line is typed, and after it: (bench) -> fact, (bench, fact, said) -> nothing


def after_seed(bench, before, _said):
    assert bench.studies() == before + 3


def unchanged(bench, before, _said):
    assert bench.studies() == before


def after_purge(bench, before, said):
    assert "Nothing was deleted" not in said
    assert bench.studies() == before - 3


def says(*patterns):
    def check(_bench, _before, said):
        for pattern in patterns:
            assert re.search(pattern, said), said

    return check


def after_rotation(bench, before, _said):
    assert key(bench) != before
    assert (bench.node.home / "secret_key_previous").read_text() == before


def after_revocation(bench, before, _said):
    assert key(bench) != before
    assert not (bench.node.home / "secret_key_previous").exists()


def after_backup(bench, _before, said):
    assert "instances in" in said
    line = ["sha256sum", "-c", "--quiet", "SHA256SUMS"]
    assert subprocess.run(line, cwd=bench.folder / "mnt" / "filmroom", check=False).returncode == 0
    saved = [path.name for path in (bench.folder / "mnt" / "filmroom").rglob("*")]
    assert not {name for name in saved if "secret" in name or name.endswith(".key")}


def as_json(*keys):
    def check(_bench, _before, said):
        found = json.loads(said)
        assert set(keys) <= set(found), said

    return check


def lose_one(bench):
    """A file of the study is lost; where it was, and what was in it."""
    [(name,)] = bench.asked(
        f"SELECT object_name FROM held WHERE study_uid = '{STUDY.study_uid}' AND NOT hidden LIMIT 1"
    )
    path = bench.node.home / "storage" / "dicom" / "objects" / name
    lost = path.read_bytes()
    path.unlink()
    return path, lost


def put_back(_bench, lost, said):
    assert "1 objects put back" in said
    assert lost[0].read_bytes() == lost[1]


def rows(bench):
    return bench.asked("SELECT study_uid, attrs::text, instance_count FROM study ORDER BY 1", bench.empty[False])


def same_rows(bench, before, _said):
    assert rows(bench) == before != []


WHOLE = says("0 missing, 0 orphans, digests equal")
PROMISES = {
    "filmroom doctor": (None, says("")),
    "filmroom doctor --json": (None, as_json("findings")),
    "filmroom smoke": (Bench.studies, unchanged),
    "filmroom demo seed": (Bench.studies, after_seed),
    "filmroom demo purge": (Bench.studies, unchanged),
    "filmroom demo purge --apply": (Bench.studies, after_purge),
    "curl http://127.0.0.1:8000/health": (None, as_json("status")),
    "curl http://127.0.0.1:8000/ready": (None, as_json("checks")),
    "filmroom status --json": (None, as_json("stored", "queues", "jobs", "disk", "wrong")),
    "filmroom backup /mnt/backup/filmroom": (None, after_backup),
    "filmroom verify --backup /mnt/backup/filmroom": (None, says("all digests are equal")),
    "FILMROOM_HOME=/srv/filmroom filmroom restore /mnt/backup/filmroom": (None, WHOLE),
    "FILMROOM_HOME=/srv/filmroom filmroom verify": (None, WHOLE),
    "filmroom restore /mnt/backup/filmroom --damaged": (lose_one, put_back),
    "filmroom db current": (None, says(r"\(head\)")),
    "filmroom db history": (None, says(r"0001 ", r"\(current\)")),
    "filmroom db upgrade": (rows, same_rows),
    "filmroom db downgrade -1": (rows, same_rows),
    "filmroom db downgrade 0003": (rows, same_rows),
    "filmroom db upgrade head": (rows, same_rows),
    "filmroom user list": (None, says("boss", "ada")),
    "filmroom token create --name BRIDGE --role uploader --days 90": (None, says("shown this once")),
    "filmroom token list": (None, says("BRIDGE")),
    "filmroom keys rotate": (key, after_rotation),
    "filmroom keys rotate --revoke": (key, after_revocation),
    "filmroom audit query --study STUDY": (None, says("store")),
    "filmroom audit export --study STUDY": (None, says("<AuditMessage")),
    'filmroom maintenance on --message "Back at 18:00"': (None, says("Back at 18:00")),
    "filmroom maintenance drain --timeout 600": (None, says("Nothing runs")),
    "filmroom maintenance status": (None, says("Back at 18:00")),
    "filmroom maintenance off": (None, says("Maintenance is off", "objects stored")),
    "filmroom import FOLDER": (Bench.studies, unchanged),
    "filmroom ai models": (None, says("ct-lung-body")),
    "filmroom config show": (None, says("DICOM_PORT")),
    "filmroom doctor --list": (None, says("stray-file")),
    "filmroom --version": (None, says(r"filmroom \d")),
}
SERVED = "filmroom serve"  # the node that all others are typed beside
TYPED = [line for line in runbook.lines() if line.text != SERVED and not line.text.startswith(NOT_HERE)]


def test_every_promise_is_about_a_line_of_the_runbook():
    assert PROMISES.keys() <= {line.text for line in runbook.lines()}


def test_the_node_serves_and_holds_a_study(bench):
    assert SERVED in {line.text for line in runbook.lines()}
    code, _said = bench.type(runbook.Line("Useful commands", "filmroom import FOLDER"))
    assert (code, bench.studies()) == (0, 1)


@pytest.mark.parametrize("line", TYPED, ids=lambda line: f"{line.heading}: {line.text}")
def test_it_does_what_the_text_says(bench, line):
    look, check = PROMISES.get(line.text, (None, None))
    before = look(bench) if look else None
    code, said = bench.type(line)
    assert code == 0, said
    assert "Traceback" not in said
    if check:
        check(bench, before, said)
