"""Forwarding: what rules want arrives once, whatever happens to the destination or to us."""

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pacs.cli import rules as verb
from pacs.dimse.courier import forward
from pacs.domain.events import Source
from pacs.errors import SettingsError
from pacs.settings import Settings
from tests.bench.servers import free_port
from tests.dicomweb.objects import ct, part10
from tests.dimse.receiver import receiving

if TYPE_CHECKING:
    from pacs.node import Node
    from tests.running import RunningNode

RULES = """
[rules.ct]
destination = "READING"
match = { Modality = "CT", StudyDescription = "fwd*" }

[rules.again]
destination = "READING"
match = { StudyDescription = "fwd*" }
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def settings(settings: Settings, files: Path, port: int) -> Settings:
    peers, rules = files / "peers.toml", files / "rules.toml"
    peers.write_text(f'[peers.READING]\nhost = "127.0.0.1"\nport = {port}\n')
    rules.write_text(RULES)
    return dataclasses.replace(settings, dicom_peers=peers, dicom_rules=rules)


@pytest.fixture(autouse=True)
def clean(node: "Node", files: Path) -> None:
    """Each test begins with the usual rules and an empty queue."""
    (files / "rules.toml").write_text(RULES)
    node.forwarding.plan()
    with psycopg.connect(node.settings.database_url) as connection:
        connection.execute("DELETE FROM forward_item")
        connection.execute("DELETE FROM forward_destination")


def keep(node: "Node", *objects: Dataset, peer: str = "MODALITY", door: str = "dimse") -> list[str]:
    for one in objects:
        incoming = node.ingest.begin(Source(door, peer))
        incoming.write(part10(one))
        node.ingest.store(incoming)
    return [one.SOPInstanceUID for one in objects]


def slices(count: int, **more: Any) -> list[Dataset]:
    study = generate_uid()
    return [ct(study=study, StudyDescription="fwd test", InstanceNumber=number, **more) for number in range(count)]


def states(node: "Node") -> dict[str, int]:
    with psycopg.connect(node.settings.database_url) as connection:
        rows = connection.execute("SELECT state, count(*) FROM forward_item GROUP BY state").fetchall()
    return dict(rows)


def turn(node: "Node") -> None:
    """One turn of the duties, and the threads they started."""
    node.forwarding.plan()
    forward(node)
    for thread in list(node.forwarding._busy.values()):
        thread.join(30)
        assert not thread.is_alive()


def until(node: "Node", condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, node.forwarding.board()
        turn(node)
        threading.Event().wait(0.05)


def test_what_matches_arrives_once_by_one_association(node: "Node", port: int) -> None:
    wanted = keep(node, *slices(5))
    keep(node, ct(StudyDescription="other"))
    with receiving("READING", port=port) as reading:
        turn(node)
        turn(node)
    assert [one.uid for one in reading.came] == wanted
    assert reading.associations == 1
    assert states(node) == {"sent": 5}


def test_nothing_goes_back_to_where_it_came_from(node: "Node") -> None:
    keep(node, *slices(2), peer="READING")
    node.forwarding.plan()
    assert states(node) == {}


def test_results_of_models_go_where_a_rule_says_so(node: "Node", files: Path) -> None:
    keep(node, *slices(1), peer="ct-lung-body", door="ai")
    node.forwarding.plan()
    assert states(node) == {}
    (files / "rules.toml").write_text(
        '[rules.r]\ndestination = "READING"\nmatch = { StudyDescription = "fwd*" }\nresults = true'
    )
    keep(node, *slices(1), peer="ct-lung-body", door="ai")
    node.forwarding.plan()
    assert states(node) == {"waiting": 1}


def test_only_the_named_senders_are_forwarded(node: "Node", files: Path) -> None:
    (files / "rules.toml").write_text(
        '[rules.r]\ndestination = "READING"\nmatch = { Modality = "CT" }\nfrom = ["CT1", "CT2"]'
    )
    keep(node, *slices(1), peer="CT3")
    keep(node, *slices(2), peer="CT2")
    node.forwarding.plan()
    assert states(node) == {"waiting": 2}


def test_a_destination_that_is_down_is_waited_for_and_nothing_doubles(node: "Node", port: int) -> None:
    wanted = keep(node, *slices(4))
    turn(node)
    assert states(node) == {"waiting": 4}
    [row] = node.forwarding.board()
    assert (row["failures"], row["waiting"]) == (1, 4)
    assert "cannot be reached" in row["message"]
    forward(node)
    assert node.forwarding.board()[0]["failures"] == 1, "while the breaker is open nobody tries"
    wanted += keep(node, *slices(3))
    with receiving("READING", port=port) as reading:
        until(node, lambda: states(node) == {"sent": 7})
    assert sorted(one.uid for one in reading.came) == sorted(wanted)
    assert node.forwarding.board()[0]["failures"] == 0


def test_a_destination_without_space_keeps_its_objects_waiting(node: "Node", port: int) -> None:
    wanted = keep(node, *slices(3))
    with receiving("READING", port=port) as reading:
        reading.answer = lambda one: 0xA700 if len(reading.came) == 1 else 0
        turn(node)
        assert states(node) == {"sent": 1, "waiting": 2}
        assert "0xa700" in node.forwarding.board()[0]["message"]
        reading.answer = lambda one: 0
        until(node, lambda: states(node) == {"sent": 3})
    assert [one.uid for one in reading.came] == [wanted[0], wanted[1], wanted[1], wanted[2]]


def test_an_object_that_is_refused_again_and_again_is_dead_until_it_is_replayed(
    node: "Node", port: int, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = keep(node, *slices(3))
    with receiving("READING", port=port) as reading:
        reading.answer = lambda one: 0xC000 if one.uid == wanted[1] else 0
        for _ in range(5):
            turn(node)
            with psycopg.connect(settings.database_url) as connection:
                connection.execute("UPDATE forward_item SET due_at = now() WHERE state = 'waiting'")
        assert states(node) == {"sent": 2, "dead": 1}
        [dead] = node.forwarding.dead()
        assert (dead["sop_instance_uid"], dead["attempts"]) == (wanted[1], 5)
        assert "0xc000" in dead["message"]
        reading.answer = lambda one: 0
        typed(settings, "dead")
        shown = capsys.readouterr().out
        assert wanted[1] in shown
        assert typed(settings, "replay", str(dead["id"])) == 0
        turn(node)
    assert states(node) == {"sent": 3}
    assert typed(settings, "replay", str(dead["id"])) == 1, "nothing of that number is dead any more"


def test_what_the_destination_can_never_take_is_dead_at_once(node: "Node", port: int) -> None:
    keep(node, *slices(1))
    with receiving("READING", port=port, classes=["1.2.840.10008.5.1.4.1.1.4"]):
        turn(node)
    assert states(node) == {"dead": 1}


def test_what_was_deleted_meanwhile_is_dropped(node: "Node", port: int) -> None:
    from pacs.domain.levels import Scope

    objects = slices(2)
    keep(node, *objects)
    node.forwarding.plan()
    node.lifecycle.delete(Scope(objects[0].StudyInstanceUID), Source("test", "test"))
    with receiving("READING", port=port) as reading:
        turn(node)
    assert states(node) == {"dropped": 2}
    assert not reading.came


def test_a_sender_that_was_killed_doubles_nothing_that_it_had_written_down(node: "Node", port: int) -> None:
    wanted = keep(node, *slices(4))
    node.forwarding.plan()
    killed = node.forwarding.lease("READING", 4)
    node.forwarding.sent("READING", [killed[0].id])
    with receiving("READING", port=port) as reading:
        turn(node)
        assert not reading.came, "they are still the other's"
        with psycopg.connect(node.settings.database_url) as connection:
            connection.execute(
                "UPDATE forward_item SET lease_until = now() - interval '1 second' WHERE state = 'waiting'"
            )
        turn(node)
    assert [one.uid for one in reading.came] == wanted[1:]


def test_what_was_stored_before_there_was_a_rule_stays(node: "Node", files: Path) -> None:
    (files / "rules.toml").write_text("")
    keep(node, *slices(2))
    node.changes.seal()
    node.forwarding.plan()
    (files / "rules.toml").write_text(RULES)
    node.forwarding.plan()
    assert states(node) == {}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[rules.x]\nmatch = { Modality = 'CT' }", "destination"),
        ("[rules.x]\ndestination = 'A'\nstow = 'http://b/'", "one of them"),
        ("[rules.x]\ndestination = 'A'\nmatch = { Modalty = 'CT' }", "rules.x.match"),
        ("[rules.x]\ndestination = 'A'\nmatch = { PixelData = 'CT' }", "rules.x.match"),
        ("[rules.x]\ndestination = 'A'\nmatch = { StudyDate = 'June' }", "rules.x.match"),
        ("[rules.x]\ndestination = 'A'\nmatch = { Modality = '*' }", "rules.x.match"),
        ("[rules.x]\ndestination = 'A'\nwhen = 'now'", "rules.x.when"),
        ("[rules.x]\nstow = 'ftp://b/'", "rules.x.stow"),
        ("[rule.x]\ndestination = 'A'", "[rules.NAME]"),
        ("rules = ", "TOML"),
    ],
)
def test_a_rules_file_that_is_wrong_names_its_fault(node: "Node", files: Path, text: str, word: str) -> None:
    (files / "rules.toml").write_text(text)
    with pytest.raises(SettingsError, match=word.replace("[", r"\[")):
        node.forwarding.plan()


def typed(settings: Settings, *line: str) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args(line), settings)


def test_rules_say_what_they_would_do(node: "Node", settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    objects = slices(3)
    keep(node, *objects[:2])
    keep(node, objects[2], peer="READING")
    assert typed(settings, "test", "--study", objects[0].StudyInstanceUID, "--json") == 0
    found = json.loads(capsys.readouterr().out)["rules"]
    assert found[0] == {"rule": "ct", "destination": "READING", "forward": 2, "came from there": 1}
    assert typed(settings, "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [rule["name"] for rule in listed["rules"]] == ["ct", "again"]


# STOW


class Service:
    """A STOW service that answers as it is told and keeps bodies."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.tokens: list[str] = []
        self.status = 200
        self.failed: dict[str, int] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/dicom-web"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.bodies.append(body)
                service.tokens.append(self.headers.get("Authorization", ""))
                content = json.dumps(service.report(body)).encode()
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def report(self, body: bytes) -> dict[str, Any]:
        from io import BytesIO

        from pydicom import dcmread

        uids = [
            str(dcmread(BytesIO(part.partition(b"\r\n\r\n")[2])).SOPInstanceUID) for part in body.split(b"\r\n--")[0:-1]
        ]

        def item(uid: str) -> dict[str, Any]:
            reason = {"00081197": {"vr": "US", "Value": [self.failed[uid]]}} if uid in self.failed else {}
            return {"00081155": {"vr": "UI", "Value": [uid]}, **reason}

        return {
            "00081199": {"vr": "SQ", "Value": [item(uid) for uid in uids if uid not in self.failed]},
            "00081198": {"vr": "SQ", "Value": [item(uid) for uid in uids if uid in self.failed]},
        }


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.server.shutdown()


def stow_rule(files: Path, url: str, more: str = "") -> None:
    (files / "rules.toml").write_text(f'[rules.s]\nstow = "{url}"\nmatch = {{ StudyDescription = "fwd*" }}\n{more}')


def test_a_service_is_sent_files_as_they_are(node: "Node", files: Path, service: Service) -> None:
    (files / "token").write_text("secret-token\n")
    stow_rule(files, service.url, 'token_file = "token"')
    objects = slices(3)
    keep(node, *objects)
    turn(node)
    assert states(node) == {"sent": 3}
    [body] = service.bodies
    assert all(part10(one) in body for one in objects)
    assert service.tokens == ["Bearer secret-token"]


def test_a_service_that_fails_is_waited_for_and_one_that_refuses_an_object_is_believed(
    node: "Node", files: Path, service: Service
) -> None:
    stow_rule(files, service.url)
    wanted = keep(node, *slices(3))
    service.status = 503
    turn(node)
    assert states(node) == {"waiting": 3}
    assert "503" in node.forwarding.board()[0]["message"]
    service.status, service.failed = 409, {wanted[0]: 0x0110}
    until(node, lambda: states(node).get("sent") == 2)
    with psycopg.connect(node.settings.database_url) as connection:
        [row] = connection.execute(
            "SELECT sop_instance_uid, attempts, message FROM forward_item WHERE state = 'waiting'"
        )
    assert row[:2] == (wanted[0], 1)
    assert "0x0110" in row[2]


def test_another_node_takes_what_is_forwarded_by_stow(node: "Node", files: Path, running_node: "RunningNode") -> None:
    stow_rule(files, f"{running_node.http_url}/dicom-web")
    objects = slices(25)
    keep(node, *objects)
    turn(node)
    assert states(node) == {"sent": 25}
    url = f"{running_node.http_url}/dicom-web/studies/{objects[0].StudyInstanceUID}/instances"
    found = {row["00080018"]["Value"][0] for row in httpx.get(url).json()}
    assert found == {one.SOPInstanceUID for one in objects}
