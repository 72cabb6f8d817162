import time

import pytest
import structlog
from pydicom.dataset import Dataset

from pacs.dimse.limits import Limits
from pacs.domain.levels import Level
from pacs.domain.syntaxes import EXPLICIT_LE
from pacs.errors import BadRequest, Unavailable
from pacs.telemetry import place_exception, withhold
from tests.dimse.conftest import OpenDoor
from tests.dimse.door import Door
from tests.dimse.sender import Sender, cancel_request, find_request
from tests.dimse.test_answer import read
from tests.dimse.test_identifier import encoded, keys

PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1.1"
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT = [(STUDY_ROOT, [EXPLICIT_LE]), (PATIENT_ROOT, [EXPLICIT_LE])]


def row(number: int, name: str = "DOE^J") -> dict[str, dict[str, object]]:
    return {
        "0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]},
        "00081030": {"vr": "LO", "Value": ["not asked for"]},
    }


def found(door: Door, ds: Dataset, model: str = STUDY_ROOT) -> tuple[list[Dataset], int, str]:
    """Data sets of the pending answers, final status, comment."""
    with Sender(door.address, EXPLICIT) as sender:
        *pending, final = sender.find(model, encoded(ds), 1 if model == STUDY_ROOT else 3)
    assert {answer.status for answer in pending} <= {0xFF00, 0xFF01}
    return [read(answer.data, EXPLICIT_LE) for answer in pending], final.status, final.command.text("ErrorComment")


def test_no_match_is_success_at_once(door: Door) -> None:
    assert found(door, keys()) == ([], 0, "")


def test_an_answer_holds_the_keys_asked_for_and_what_every_answer_holds(door: Door) -> None:
    door.node.search.rows = [row(1, "Müller^Jürgen")]
    (ds,), status, _ = found(door, keys(PatientName="", StudyInstanceUID="", PatientID=""))
    assert status == 0
    assert {element.keyword for element in ds} == {
        "SpecificCharacterSet", "QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability",
        "PatientName", "PatientID", "StudyInstanceUID",
    }  # fmt: skip
    assert (ds.QueryRetrieveLevel, ds.RetrieveAETitle, ds.InstanceAvailability) == ("STUDY", "FILMROOM", "ONLINE")
    assert (str(ds.PatientName), ds.SpecificCharacterSet, ds.PatientID) == ("Müller^Jürgen", "ISO_IR 192", "")


@pytest.mark.parametrize("count", [1, 999, 1_000, 1_001, 2_500])
def test_every_row_is_answered_once_in_order(door: Door, count: int) -> None:
    door.node.search.rows = [row(number) for number in range(count)]
    answers, status, _ = found(door, keys(StudyInstanceUID=""))
    assert [ds.StudyInstanceUID for ds in answers] == [f"1.2.{number}" for number in range(count)]
    assert status == 0


def test_the_models_differ_in_their_root(door: Door) -> None:
    assert found(door, keys("PATIENT", PatientID="P"))[1] == 0xA900
    assert found(door, keys("PATIENT", PatientID="P"), PATIENT_ROOT)[1] == 0
    assert door.node.search.queries[-1].level is Level.PATIENT


def test_unknown_keys_are_told_by_the_pending_status(door: Door) -> None:
    door.node.search.rows = [row(1)]
    with Sender(door.address, EXPLICIT) as sender:
        pending, _ = sender.find(STUDY_ROOT, encoded(keys(StudyInstanceUID="", PatientReligiousPreference="")))
    assert pending.status == 0xFF01
    assert read(pending.data, EXPLICIT_LE).PatientReligiousPreference == ""


def test_a_missing_upper_key_is_named(door: Door) -> None:
    with Sender(door.address, EXPLICIT) as sender:
        (final,) = sender.find(STUDY_ROOT, encoded(keys("SERIES")))
    assert final.status == 0xA900
    assert final.command.values["OffendingElement"] == (0x0020000D,)


def test_an_unreadable_identifier_is_not_processed(door: Door) -> None:
    with Sender(door.address, EXPLICIT) as sender:
        (final,) = sender.find(STUDY_ROOT, b"\x08\0\x52\0CS\xff\xff")
        assert final.status == 0xC000
        assert sender.find(STUDY_ROOT, encoded(keys()))[-1].status == 0


def test_an_identifier_that_is_too_long_is_refused(door: Door) -> None:
    with Sender(door.address, EXPLICIT) as sender:
        (final,) = sender.find(STUDY_ROOT, bytes(Limits().max_identifier + 1))
        assert final.status == 0xA700
        assert sender.find(STUDY_ROOT, encoded(keys()))[-1].status == 0


def test_a_database_that_is_away_is_told(door: Door) -> None:
    door.node.search.fails = Unavailable("The database is away.")
    assert found(door, keys())[1:] == (0xA700, "The database is away.")


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_a_malformed_value_is_refused_without_quoting_it(door: Door) -> None:
    door.node.search.fails = BadRequest("DOE^JANE is no date.")
    _, status, comment = found(door, keys(StudyDate="x"))
    assert status == 0xA900
    assert "DOE" not in comment


def test_a_failure_that_nobody_foresaw_is_no_success(door: Door) -> None:
    door.node.search.fails = RuntimeError("DOE^JANE")
    _, status, comment = found(door, keys())
    assert status == 0x0110
    assert "DOE" not in comment


def test_a_cancel_ends_the_answers(door: Door) -> None:
    door.node.search.rows = [row(number) for number in range(20_000)]
    with Sender(door.address, EXPLICIT) as sender:
        number = sender.send(1, find_request(STUDY_ROOT), encoded(keys(StudyInstanceUID="")))
        assert sender.answer().status == 0xFF00
        sender.send(1, cancel_request(number))
        count = 1
        while (status := sender.answer().status) == 0xFF00:
            count += 1
        assert status == 0xFE00
        assert count < 20_000
        assert sender.find(STUDY_ROOT, encoded(keys("PATIENT")))[-1].status == 0xA900


def test_a_cancel_of_nothing_is_ignored(door: Door) -> None:
    with Sender(door.address, EXPLICIT) as sender:
        sender.send(1, cancel_request(77))
        assert sender.find(STUDY_ROOT, encoded(keys()))[-1].status == 0


def test_rows_are_fetched_as_the_peer_reads(open_door: OpenDoor) -> None:
    door = open_door(limits=Limits(output_low=4_096))
    door.node.search.rows = [row(number, "X" * 2_000) for number in range(20_000)]
    with Sender(door.address, EXPLICIT) as sender:
        sender.send(1, find_request(STUDY_ROOT), encoded(keys(StudyInstanceUID="", PatientName="")))
        fetched = -1
        while fetched != len(door.node.search.queries):  # until the sockets' buffers are full
            fetched = len(door.node.search.queries)
            time.sleep(0.3)
        assert fetched < 15
        count = 0
        while sender.answer().status == 0xFF00:
            count += 1
        assert count == 20_000


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_no_value_of_an_identifier_reaches_a_log_or_a_comment(door: Door) -> None:
    canary = "CANARY^PATIENT"
    said = []
    with structlog.testing.capture_logs() as events, Sender(door.address, EXPLICIT) as sender:
        for fails in (None, BadRequest(canary), RuntimeError(canary), Unavailable("The database is away.")):
            door.node.search.fails = fails
            for level in ("STUDY", "SERIES", canary[:16]):
                data = encoded(keys(level, PatientName=canary, PatientID=canary, AccessionNumber=canary[:16]))
                for identifier in (data, data[:-3]):
                    said += [answer.command.values for answer in sender.find(STUDY_ROOT, identifier)]
    assert len(events) > 10
    written = [withhold(None, "", place_exception(None, "", event)) for event in events]  # as the node's log does
    assert "CANARY" not in repr(written)
    assert "CANARY" not in repr(said)
