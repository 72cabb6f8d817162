"""STOW-RS against an ingest that can be told to fail (PS3.18 10.5; dicomweb.md 2.5)."""

from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from pacs.errors import Reason
from tests.dicomweb.fakes import FakeIngest
from tests.dicomweb.objects import CT, ct, multipart, part10

Call = type(lambda: None)
STUDIES = "/dicom-web/studies"


@pytest.fixture
def ingest(bare_node: SimpleNamespace) -> FakeIngest:
    bare_node.ingest = FakeIngest()
    return bare_node.ingest


def post(bare: Call, *contents: bytes, path: str = STUDIES, kind: str = "application/dicom", **headers: str):  # type: ignore[no-untyped-def]
    known, body = multipart(*contents, kind=kind)
    return bare("POST", path, headers={**known, **headers}, content=body)


class TestOutcome:
    def test_all_stored_is_200_with_references_and_without_empty_sequences(
        self, bare: Call, ingest: FakeIngest
    ) -> None:
        one = ct()
        two = ct(study=one.StudyInstanceUID)
        answer = post(bare, part10(one), part10(two))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/dicom+json"
        found = answer.json()
        assert set(found) == {"00081190", "00081199"}
        study = f"http://127.0.0.1:8000/dicom-web/studies/{one.StudyInstanceUID}"
        assert found["00081190"] == {"vr": "UR", "Value": [study]}
        assert found["00081199"]["Value"][1] == {
            "00081150": {"vr": "UI", "Value": [CT]},
            "00081155": {"vr": "UI", "Value": [two.SOPInstanceUID]},
            "00081190": {
                "vr": "UR",
                "Value": [f"{study}/series/{two.SeriesInstanceUID}/instances/{two.SOPInstanceUID}"],
            },
        }

    def test_bytes_arrive_as_they_were_sent(self, bare: Call, ingest: FakeIngest) -> None:
        small, large = ct(), ct(PixelData=bytes(3 << 20))
        post(bare, part10(small), part10(large))
        assert ingest.stored == {item.SOPInstanceUID: part10(item) for item in (small, large)}

    def test_objects_of_two_studies_have_no_common_url(self, bare: Call, ingest: FakeIngest) -> None:
        assert "00081190" not in post(bare, part10(ct()), part10(ct())).json()

    def test_a_bad_part_never_loses_the_good(self, bare: Call, ingest: FakeIngest) -> None:
        first, last = ct(), ct()
        answer = post(bare, part10(first), b"garbage", part10(last))
        assert answer.status_code == 202
        assert set(ingest.stored) == {first.SOPInstanceUID, last.SOPInstanceUID}
        other = answer.json()["0008119A"]["Value"]
        assert [item["00081197"]["Value"] for item in other] == [[0xC000]]
        assert other[0]["00091001"]["Value"] == ["r1"]

    def test_none_stored_is_409(self, bare: Call, ingest: FakeIngest) -> None:
        answer = post(bare, b"garbage", b"")
        assert answer.status_code == 409
        assert set(answer.json()) == {"0008119A"}

    def test_an_object_of_another_study_fails_by_name(self, bare: Call, ingest: FakeIngest) -> None:
        item = ct()
        answer = post(bare, part10(item), path=f"{STUDIES}/1.2.3")
        assert answer.status_code == 409
        failed = answer.json()["00081198"]["Value"][0]
        assert failed["00081155"]["Value"] == [item.SOPInstanceUID]
        assert failed["00081197"] == {"vr": "US", "Value": [0xA900]}

    def test_remarks_of_the_store_are_no_warnings_of_the_standard(self, bare: Call, ingest: FakeIngest) -> None:
        ingest.warnings = ("the preamble was not empty and has been zeroed",)
        answer = post(bare, part10(ct()))
        assert answer.status_code == 200
        assert "00081196" not in answer.json()["00081199"]["Value"][0]

    def test_disk_full_says_so_and_when_to_come_back(self, bare: Call, ingest: FakeIngest) -> None:
        ingest.begin_reason = Reason.OUT_OF_SPACE
        answer = post(bare, part10(ct()), part10(ct()))
        assert answer.status_code == 507
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["0008119A"]["Value"][0]["00081197"]["Value"] == [0xA700]
        assert len(ingest.sources) == 1, "no second part can do better"

    def test_database_away_is_503(self, bare: Call, ingest: FakeIngest) -> None:
        ingest.begin_reason = Reason.UNAVAILABLE
        answer = post(bare, part10(ct()))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0

    def test_weasis_gets_its_xml(self, bare: Call, ingest: FakeIngest) -> None:
        item = ct()
        answer = post(bare, part10(item), b"garbage", Accept="application/dicom+xml")
        assert answer.status_code == 202
        assert answer.headers["content-type"] == "application/dicom+xml"
        read = ElementTree.fromstring(answer.content)
        tags = [attribute.attrib["tag"] for attribute in read]
        assert tags == ["00081190", "00081199", "0008119A"]
        assert item.SOPInstanceUID in answer.text

    def test_our_own_failure_is_not_told_in_its_words(self, bare: Call, ingest: FakeIngest) -> None:
        ingest.broken = True
        answer = post(bare, part10(ct()))
        assert answer.status_code == 500
        assert answer.json()["0008119A"]["Value"][0]["00081197"]["Value"] == [0x0110]
        assert "Doe" not in answer.text


class TestRequest:
    @pytest.mark.parametrize("boundary", ["b", '"b"', '"b";charset=utf-8'])
    @pytest.mark.parametrize(
        "kind", ["application/dicom", '"application/dicom"', '"application/dicom; transfer-syntax=*"']
    )
    def test_type_and_boundary_come_quoted_or_not(
        self, bare: Call, ingest: FakeIngest, boundary: str, kind: str
    ) -> None:
        body = b"\r\n--b\r\nContent-Type: application/dicom;transfer-syntax=1.2\r\n\r\n" + part10(ct()) + b"\r\n--b--"
        headers = {"Content-Type": f"multipart/related; type={kind}; boundary={boundary}"}
        assert bare("POST", STUDIES, headers=headers, content=body).status_code == 200

    def test_single_part_is_stored(self, bare: Call, ingest: FakeIngest) -> None:
        item = ct()
        answer = bare("POST", STUDIES, headers={"Content-Type": "application/dicom"}, content=part10(item))
        assert answer.status_code == 200
        assert ingest.stored == {item.SOPInstanceUID: part10(item)}

    @pytest.mark.parametrize(
        "kind",
        [
            "",
            "application/json",
            "multipart/form-data; boundary=b",
            'multipart/related; type="application/dicom+xml"; boundary=b',
        ],
    )
    def test_other_types_are_415(self, bare: Call, ingest: FakeIngest, kind: str) -> None:
        answer = bare("POST", STUDIES, headers={"Content-Type": kind}, content=b"x")
        assert answer.status_code == 415
        assert answer.json()["error"] == "unsupported-media-type"

    def test_content_encoding_is_415(self, bare: Call, ingest: FakeIngest) -> None:
        assert post(bare, part10(ct()), **{"Content-Encoding": "gzip"}).status_code == 415

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ('multipart/related; type="application/dicom"', b"--b--"),
            ('multipart/related; type="application/dicom"; boundary=b', b""),
            ('multipart/related; type="application/dicom"; boundary=b', b"--b--"),
            ('multipart/related; type="application/dicom"; boundary=b', b"no framing"),
            (
                'multipart/related; type="application/dicom"; boundary=b',
                b"--b\r\nContent-Type: application/dicom\r\n\r\nx",
            ),
            (f'multipart/related; type="application/dicom"; boundary={"x" * 71}', b"--b--"),
            ("application/dicom", b""),
        ],
    )
    def test_bodies_that_cannot_be_read_are_400(self, bare: Call, ingest: FakeIngest, kind: str, body: bytes) -> None:
        answer = bare("POST", STUDIES, headers={"Content-Type": kind}, content=body)
        assert answer.status_code == 400
        assert not ingest.stored

    def test_missing_end_keeps_what_was_whole_and_drops_the_rest(self, bare: Call, ingest: FakeIngest) -> None:
        whole, cut = ct(), ct(PixelData=bytes(3 << 20))
        headers, body = multipart(part10(whole), part10(cut))
        answer = bare("POST", STUDIES, headers=headers, content=body[:-1000])
        assert answer.status_code == 202
        assert set(ingest.stored) == {whole.SOPInstanceUID}
        assert [incoming.aborted for incoming in ingest.begun] == [False, True]
        assert answer.json()["0008119A"]["Value"][0]["00081197"]["Value"] == [0xC000]

    def test_broken_framing_keeps_what_was_whole_before_it(self, bare: Call, ingest: FakeIngest) -> None:
        item = ct()
        body = (
            b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part10(item) + b"\r\n--b\r\nno colon\r\n\r\nx\r\n--b--"
        )
        headers = {"Content-Type": "multipart/related; type=application/dicom; boundary=b"}
        answer = bare("POST", STUDIES, headers=headers, content=body)
        assert answer.status_code == 202
        assert set(ingest.stored) == {item.SOPInstanceUID}

    def test_parts_of_other_types_are_refused_and_the_others_stored(self, bare: Call, ingest: FakeIngest) -> None:
        item = ct()
        body = b"--b\r\nContent-Type: image/jpeg\r\n\r\nx\r\n--b\r\n\r\n" + part10(item) + b"\r\n--b--"
        headers = {"Content-Type": "multipart/related; type=application/dicom; boundary=b"}
        answer = bare("POST", STUDIES, headers=headers, content=body)
        assert answer.status_code == 202
        assert set(ingest.stored) == {item.SOPInstanceUID}

    def test_a_body_over_the_limit_is_413(self, bare: Call, ingest: FakeIngest) -> None:
        headers, body = multipart(part10(ct(PixelData=bytes(2 << 20))))
        small = {"dicom_max_upload_size_gb": 1 / 1024}
        answer = bare("POST", STUDIES, settings=small, headers=headers, content=body)
        assert answer.status_code == 413
        assert not ingest.stored

    def test_an_object_over_the_limit_fails_alone(self, bare: Call, ingest: FakeIngest) -> None:
        ingest.most = 1 << 20
        small = ct()
        answer = post(bare, part10(ct(PixelData=bytes(2 << 20))), part10(small))
        assert answer.status_code == 202
        assert set(ingest.stored) == {small.SOPInstanceUID}

    def test_malformed_study_in_the_path_is_400(self, bare: Call, ingest: FakeIngest) -> None:
        assert post(bare, part10(ct()), path=f"{STUDIES}/..%2F..").status_code in {400, 404}
        assert post(bare, part10(ct()), path=f"{STUDIES}/abc").status_code == 400

    def test_an_answer_nobody_here_can_give_is_refused_before_storing(self, bare: Call, ingest: FakeIngest) -> None:
        assert post(bare, part10(ct()), Accept="text/html").status_code == 406
        assert not ingest.stored

    def test_the_door_and_the_peer_are_told(self, bare: Call, ingest: FakeIngest) -> None:
        post(bare, part10(ct()))
        assert [(source.door, source.address) for source in ingest.sources] == [("stow", "127.0.0.1")]
