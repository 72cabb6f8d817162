"""PS3.18 8.7.4 and 9.5: reports as pages and text, PDF as it is, multi-frame images as a picture that moves."""

import re

import httpx
import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.conformance.conftest import Store, path
from tests.dicomweb.objects import ct

BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
HOSTILE = '<script>alert("1")</script> & "quoted"'


def code(meaning: str, value: str = "1", scheme: str = "99TEST") -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def content(kind: str, name: str, *inner: Dataset, **values: object) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType, item.ConceptNameCodeSequence = "CONTAINS", kind, code(name)
    for keyword, given in values.items():
        setattr(item, keyword, given)
    if inner:
        item.ContentSequence = Sequence(inner)
    return item


@pytest.fixture(scope="module")
def report(store: Store) -> Dataset:
    """One item of each kind that has a value, the texts as hostile as a peer's may be."""
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12.5", code("millimeter", "mm", "UCUM")
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
    reference.ReferencedFrameNumber = 3
    found = ct(SOPClassUID=BASIC_TEXT_SR, Modality="SR", PatientName="Häß^Jürgen=山田^太郎")
    del found.PixelData
    found.SpecificCharacterSet = "ISO_IR 192"
    found.ValueType, found.ConceptNameCodeSequence = "CONTAINER", code(f"Title {HOSTILE}")
    found.ContentSequence = Sequence(
        [
            content("TEXT", f"Finding {HOSTILE}", TextValue=f"first line\n{HOSTILE}"),
            content(
                "CONTAINER",
                "Measurements",
                content("NUM", "Diameter", MeasuredValueSequence=Sequence([measured])),
                content("CODE", "Site", ConceptCodeSequence=code("Lung")),
                content("IMAGE", "Source", ReferencedSOPSequence=Sequence([reference])),
                content("SCOORD", "Outline", GraphicType="POINT", GraphicData=[1.5, 2.0]),
            ),
            content("PNAME", "Observer", PersonName="Doe^Jane"),
            content("DATETIME", "When", DateTime="20260102"),
        ]
    )
    store(found)
    return found


@pytest.mark.parametrize("accept", ["text/html", "text/html,application/xhtml+xml,*/*;q=0.8", "*/*"])
def test_report_is_a_page_on_which_nothing_of_it_is_markup(http: httpx.Client, report: Dataset, accept: str) -> None:
    answer = http.get(f"{path(report)}/rendered", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp;" in answer.text
    tags = set(re.findall(r"</?([a-z0-9]+)", answer.text))
    assert tags <= {"html", "head", "meta", "title", "body", "table", "tr", "th", "td", "p", "strong", "br"} | {
        f"h{n}" for n in range(1, 7)
    }


def test_report_is_text_in_the_order_of_its_tree(http: httpx.Client, report: Dataset) -> None:
    answer = http.get(f"{path(report)}/rendered", headers={"Accept": "text/plain"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    lines = answer.text.splitlines()
    assert "Patient: Häß Jürgen = 山田 太郎" in lines
    for line in ("  2.1 Diameter: 12.5 mm", "  2.2 Site: Lung", "  2.3 Source: 1.2.3.4 frame 3",
                 "  2.4 Outline: POINT 1.5 2", "3 Observer: Doe Jane", "4 When: 20260102"):  # fmt: skip
        assert line in lines
    assert lines.index("2 Measurements") < lines.index("3 Observer: Doe Jane")


def test_report_is_no_picture(http: httpx.Client, report: Dataset) -> None:
    assert http.get(f"{path(report)}/rendered", headers={"Accept": "image/jpeg"}).status_code == 406
    assert http.get(f"{path(report)}/thumbnail").status_code == 404


def test_report_has_a_validator(http: httpx.Client, report: Dataset) -> None:
    answer = http.get(f"{path(report)}/rendered")
    again = http.get(f"{path(report)}/rendered", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    other = http.get(f"{path(report)}/rendered", headers={"Accept": "text/plain"})
    assert other.headers["etag"] != answer.headers["etag"]


def test_wado_uri_gives_a_report_as_a_page_unless_another_type_is_named(
    http: httpx.Client, port: int, report: Dataset
) -> None:
    named = {"requestType": "WADO", "objectUID": report.SOPInstanceUID}
    kinds = {None: "text/html", "text/plain": "text/plain", "application/dicom": "application/dicom"}
    for kind, found in kinds.items():
        more = {} if kind is None else {"contentType": kind}
        answer = http.get(f"http://127.0.0.1:{port}/wado", params=named | more)
        assert answer.headers["content-type"].startswith(found)


def test_a_deep_report_is_shown(http: httpx.Client, store: Store) -> None:
    inner = content("TEXT", "Deepest", TextValue="bottom")
    for _ in range(20):
        inner = content("CONTAINER", "Deeper", inner)
    found = ct(SOPClassUID=BASIC_TEXT_SR, ContentSequence=Sequence([inner]), ValueType="CONTAINER")
    del found.PixelData
    store(found)
    assert "Deepest: bottom" in http.get(f"{path(found)}/rendered", headers={"Accept": "text/plain"}).text


@pytest.mark.parametrize(("speed", "hundredths"), [({"CineRate": "20"}, 5), ({"FrameTime": "250"}, 25), ({}, 10)])
def test_multi_frame_as_gif_moves_as_fast_as_the_object_says(
    http: httpx.Client, store: Store, speed: dict[str, str], hundredths: int
) -> None:
    frames = np.arange(4, dtype="<u2")[:, None, None] * np.ones((1, 8, 8), "<u2") * 80
    item = ct(Rows=8, Columns=8, NumberOfFrames=4, WindowCenter="128", WindowWidth="256", RescaleIntercept="0",
              RescaleSlope="1", PixelData=frames.tobytes(), **speed)  # fmt: skip
    store(item)
    answer = http.get(f"{path(item)}/rendered", headers={"Accept": "image/gif"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/gif")
    seen = imagecodecs.gif_decode(answer.content, asrgb=True)
    assert seen.shape[:3] == (4, 8, 8)
    assert [int(frame[0, 0, 0]) for frame in seen] == [0, 80, 160, 240]
    assert answer.content.count(b"\x21\xf9\x04\x00" + hundredths.to_bytes(2, "little")) == 4
    one = http.get(f"{path(item)}/frames/2/rendered", headers={"Accept": "image/gif"})
    assert imagecodecs.gif_decode(one.content, asrgb=True).shape == (8, 8, 3)
