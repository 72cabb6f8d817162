"""Invented patient data that must turn up nowhere, and every door it is pushed through."""

import io
import json
import random
import socket
from collections.abc import Iterator

import httpx
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pynetdicom import AE
from pynetdicom.sop_class import (
    CTImageStorage,
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from tests.dicomweb.objects import CT, ct, multipart, part10
from tests.dimse.sender import Refusal, Sender
from tests.running import RunningNode

WORD = f"Kanarie{random.getrandbits(24):06x}Q"
BIRTH = f"18{random.randrange(10, 99)}0{random.randrange(1, 9)}1{random.randrange(10)}"
NAME = f"{WORD}^Anna"
ID, ACCESSION = f"{WORD}-1", f"{WORD[:14]}A"
FORGED = f'x\n{{"level":"error","event":"{WORD}"}}\x1b[2J'
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
EXPLICIT = "1.2.840.10008.1.2.1"


def found_in(text: str) -> list[str]:
    """Which canaries a text holds, however it writes them."""
    return [word for word in (WORD, BIRTH) if word.lower() in text.lower()]


def planted(**more: object) -> Dataset:
    """An object with a canary in every text that people write."""
    data = ct(
        PatientName=NAME,
        PatientID=ID,
        PatientBirthDate=BIRTH,
        AccessionNumber=ACCESSION,
        OtherPatientIDs=f"{WORD}2",
        IssuerOfPatientID=WORD,
        StudyID=WORD[:16],
        ReferringPhysicianName=f"{WORD}^Doc",
        OperatorsName=f"{WORD}^Op",
        InstitutionName=WORD,
        StudyDescription=WORD,
        SeriesDescription=WORD,
        ProtocolName=WORD,
        PatientComments=FORGED,
        ImageComments=WORD,
        PatientAddress=WORD,
        RequestedProcedureDescription=WORD,
    )
    for keyword, value in more.items():
        setattr(data, keyword, value)
    return data


def chest() -> list[Dataset]:
    """A series that models are made for, whose code streams are no pictures: a job on it starts and fails."""
    study, series = (str(ct().StudyInstanceUID) for _ in range(2))
    slices = []
    for number in range(8):
        one = planted(
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            BodyPartExamined="CHEST",
            Rows=64,
            Columns=64,
            InstanceNumber=number + 1,
            ImagePositionPatient=[0, 0, 2.5 * number],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1.5, 1.5],
            SliceThickness=2.5,
            FrameOfReferenceUID=study,
            RescaleSlope=1,
            RescaleIntercept=-1024,
            PixelData=encapsulate([b"\xff\xd8" + WORD.encode() * 20 + b"\xff\xd9"]),
        )
        one.file_meta.TransferSyntaxUID = JPEG_LOSSLESS
        one["PixelData"].VR = "OB"
        one["PixelData"].is_undefined_length = True
        slices.append(one)
    return slices


def crooked() -> Iterator[bytes]:
    """Files that cannot be what they claim, each with canaries near the fault."""
    whole = part10(planted())
    at = whole.index(NAME.encode())
    yield whole[: len(whole) // 2]
    yield whole[: at + 5]
    yield whole[: at - 2] + b"\xff\xff" + whole[at:]  # a length beyond the end
    yield whole[:at] + b"\0\x1b$B\n" + whole[at + 5 :]
    yield whole[:132] + WORD.encode() * 30
    yield WORD.encode() * 50
    yield part10(planted(PatientName="\\".join([NAME] * 40)))
    yield part10(planted(SpecificCharacterSet=WORD[:16].upper()))
    for keyword in ("StudyDate", "PatientBirthDate", "StudyTime", "Modality", "InstanceNumber", "Rows"):
        data = planted()
        tag = data[keyword].tag
        raw = part10(data)
        element = raw.find(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little"))
        length = int.from_bytes(raw[element + 6 : element + 8], "little")
        yield raw[: element + 8] + WORD.encode()[:length].ljust(length) + raw[element + 8 + length :]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        data = planted()
        uid = str(getattr(data, keyword)).encode()
        yield part10(data).replace(uid, (b"1.2." + WORD.encode()).ljust(len(uid), b"9"))


def told_by_http(answer: httpx.Response) -> str:
    """All of an answer that a client keeps in its logs."""
    return f"{answer.status_code} {answer.headers} {answer.text}"


def through_stow(http: httpx.Client) -> Iterator[httpx.Response]:
    good = planted()
    yield http.post("/dicom-web/studies", **_body(part10(good)))
    good.PatientName = f"{WORD}^Other"
    yield http.post("/dicom-web/studies", **_body(part10(good)))  # a conflict
    yield http.post("/dicom-web/studies/1.2.3", **_body(part10(planted())))
    for raw in crooked():
        yield http.post("/dicom-web/studies", **_body(raw))
    text = WORD.encode() * 10
    for kind in (
        "text/plain",
        f"multipart/related; boundary={WORD}",
        f"application/{WORD}",
        f'multipart/related; type="{WORD}"',
    ):
        yield http.post("/dicom-web/studies", content=text, headers={"content-type": kind})
    yield http.post("/dicom-web/studies", **_body(text, kind=f"application/{WORD}"))


def _body(*raw: bytes, kind: str = "application/dicom") -> dict[str, object]:
    headers, body = multipart(*raw)
    if kind != "application/dicom":
        body = body.replace(b"Content-Type: application/dicom", b"Content-Type: " + kind.encode())
    return {"headers": headers, "content": body}


def through_http(http: httpx.Client, study: str, instance: str) -> Iterator[httpx.Response]:
    """Queries good and malformed, paths, headers and bodies; 400 to 500 are wanted here."""
    for key in (
        f"PatientName={WORD}*", f"PatientID={ID}", f"PatientBirthDate={BIRTH}", f"AccessionNumber={ACCESSION}",
        f"PatientBirthDate={WORD}", f"StudyDate={WORD}-", f"StudyTime={WORD}", f"{WORD}={WORD}", f"0010{WORD}={WORD}",
        f"limit={WORD}", f"offset={WORD}", f"fuzzymatching={WORD}", f"includefield={WORD}", f"StudyInstanceUID={WORD}",
        f"NumberOfStudyRelatedInstances={WORD}", f"orderby={WORD}", f"PatientName=%FF{WORD}", f"accept={WORD}",
        f"PatientName={WORD}%00", f"00100020={ID}&00100010={WORD}&{WORD}", f"PatientID={WORD}\\{WORD}2",
    ):  # fmt: skip
        for level in ("studies", "series", "instances"):
            yield http.get(f"/dicom-web/{level}?{key}")
        yield http.get(f"{study}/series?{key}")
    for path in (
        f"/dicom-web/studies/{WORD}", f"/dicom-web/studies/{WORD}/metadata", f"/dicom-web/studies/1.2.{WORD}/series/1",
        f"{study}/series/{WORD}", f"{study}/series/{WORD}/instances/{WORD}", f"{instance}/frames/{WORD}",
        f"{instance}/bulkdata/{WORD}", f"{instance}/rendered?window={WORD}", f"{instance}/rendered?viewport={WORD}",
        f"{instance}/rendered?quality={WORD}", f"{instance}/rendered?annotation={WORD}", f"{instance}/{WORD}",
        f"{instance}/rendered?accept={WORD}", f"{instance}/thumbnail?iccprofile={WORD}", f"/dicom-web/{WORD}",
        f"/wado?requestType={WORD}", f"/wado?requestType=WADO&studyUID={WORD}&seriesUID={WORD}&objectUID={WORD}",
        f"/wado?requestType=WADO&objectUID={instance.rpartition('/')[2]}&contentType={WORD}",
        f"/wado?requestType=WADO&objectUID={instance.rpartition('/')[2]}&transferSyntax={WORD}",
        f"/wado?requestType=WADO&objectUID={instance.rpartition('/')[2]}&rows={WORD}&anonymize={WORD}",
        f"/{WORD}", f"/api/v1/{WORD}", f"/console/{WORD}", f"/console/studies/{WORD}",
        f"/console/?q={WORD}&modality={WORD}",
        f"/console/studies/1.2.{BIRTH}", f"/viewer/{WORD}", f"/console/login?next={WORD}", f"/console/static/{WORD}",
        f"/api/v1/audit?from={WORD}", f"/api/v1/audit?to={WORD}", f"/api/v1/audit?after={WORD}&patient={ID}",
        f"/api/v1/audit?limit={WORD}", f"/api/v1/ai/jobs?state={WORD}", f"/api/v1/ai/jobs?after={WORD}",
        f"/api/v1/ai/jobs/{WORD}", f"/api/v1/ai/studies/{WORD}", f"/api/v1/changes?since={WORD}",
        f"/api/v1/refusals/{WORD}", f"/api/v1/users/{WORD}", f"/api/v1/studies/{WORD}/labels",
        f"/api/v1/worklist/{WORD}", f"/api/v1/worklist?PatientID={WORD}&limit={WORD}",
        f"/api/v1/worklist?ScheduledProcedureStepStartDate={WORD}",
    ):  # fmt: skip
        yield http.get(path)
        yield http.get(path, headers={"accept": "text/html"})
    for path in (study, f"{instance}/frames/1", "/dicom-web/studies", "/api/v1/status"):
        for name in (
            "accept",
            "authorization",
            "range",
            "if-none-match",
            "x-request-id",
            "cookie",
            "origin",
            "host",
            "referer",
        ):
            yield http.get(path, headers={name: WORD})
        yield http.get(path, headers={"authorization": f"Bearer {WORD}"})
        yield http.get(path, headers={"authorization": f"Basic {WORD}"})
        yield http.get(path, headers={"accept": f"application/{WORD}; transfer-syntax={WORD}"})
        yield http.request(WORD.upper(), path)
        yield http.put(f"{path}?{WORD}", content=WORD)
    for method, path in (
        ("POST", "auth/token"), ("POST", "auth/refresh"), ("POST", "auth/password"), ("POST", "users"),
        ("PATCH", f"users/{WORD}"), ("DELETE", f"users/{WORD}"), ("POST", "tokens"), ("DELETE", f"tokens/{WORD}"),
        ("PUT", "maintenance"), ("POST", f"peers/{WORD}/test"), ("POST", f"ai/jobs/{WORD}/retry"),
        ("POST", f"ai/studies/{study.rpartition('/')[2]}/run"), ("POST", f"ai/studies/{WORD}/run"),
        ("PUT", f"studies/{study.rpartition('/')[2]}/labels"), ("POST", f"conflicts/{WORD}/resolve"),
        ("POST", f"ai/results/{WORD}/review"), ("POST", "worklist"), ("PUT", f"worklist/{WORD}"),
    ):  # fmt: skip
        yield from _bodies(http, method, f"/api/v1/{path}")
    yield http.delete(f"/dicom-web/studies/{WORD}")
    yield http.delete(f"{study}/series/{WORD}")
    yield http.post("/console/login", data={"username": WORD, "password": WORD, "next": WORD})


def _bodies(http: httpx.Client, method: str, path: str) -> Iterator[httpx.Response]:
    names = (
        "username password email name model priority state message verdict comment refresh_token expires_at current "
        "new decision labels PatientID PatientName"
    )
    words = dict.fromkeys([*names.split(), WORD], WORD)
    yield http.request(method, path, json=words)
    yield http.request(method, path, json={**words, "roles": [WORD], "labels": [WORD + "\n"], "scope": {WORD: [WORD]}})
    yield http.request(method, path, json=[WORD])
    yield http.request(method, path, content=f'{{"{WORD}": {WORD}'.encode())
    yield http.request(method, path, data={"username": WORD, "password": WORD, "grant_type": WORD})


def malformed_http(node: RunningNode) -> str:
    """What a request is answered that is no HTTP."""
    said = ""
    for text in (f"{WORD} / HTTP/1.1\r\n\r\n", f"GET /{WORD} {WORD}\r\n\r\n", f"GET / HTTP/1.1\r\n{WORD}\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", node.settings.http_port), 10) as sock:
            sock.sendall(text.encode())
            sock.settimeout(10)
            said += sock.recv(65536).decode("latin-1")
    return said


def through_dimse(node: RunningNode) -> Iterator[str]:
    """Error Comments and everything else that answers say."""
    yield from _stored(node)
    yield from _asked(node)


def _stored(node: RunningNode) -> Iterator[str]:
    for raw in (part10(planted()), *crooked()):
        instance = ct().SOPInstanceUID
        data_set = raw[raw.find(b"\x08\0", 132) :] or WORD.encode()
        for uid in (instance, f"1.2.{WORD}"):
            try:
                with Sender(("127.0.0.1", node.dicom_port), [(CT, [EXPLICIT])], calling="MODALITY") as sender:
                    yield str(sender.store(CT, uid, data_set).command)
            except (Refusal, OSError) as error:
                yield repr(error)


def _asked(node: RunningNode) -> Iterator[str]:
    models = {
        StudyRootQueryRetrieveInformationModelFind: "find",
        PatientRootQueryRetrieveInformationModelFind: "find",
        StudyRootQueryRetrieveInformationModelGet: "get",
        StudyRootQueryRetrieveInformationModelMove: "move",
    }
    for model, verb in models.items():
        for keys in _keys():
            ae = AE(ae_title="VIEWER")
            ae.add_requested_context(model)
            ae.add_requested_context(CTImageStorage)
            association = ae.associate("127.0.0.1", node.dicom_port, ae_title="FILMROOM")
            assert association.is_established
            more = (WORD[:16].upper(),) if verb == "move" else ()
            for status, found in getattr(association, f"send_c_{verb}")(keys, *more, model):
                if status and status.Status not in {0, 0xFF00, 0xFF01}:
                    yield f"{status} {found}"
            association.release()


def _keys() -> Iterator[Dataset]:
    for values in (
        {"PatientName": f"{WORD}*", "PatientID": ID, "PatientBirthDate": BIRTH, "AccessionNumber": ACCESSION},
        {"StudyDate": WORD[:8], "PatientName": NAME},
        {"PatientBirthDate": f"{WORD[:8]}-{BIRTH}"},
        {"StudyTime": WORD[:14]},
        {"StudyInstanceUID": WORD},
        {"PatientName": FORGED},
        {"QueryRetrieveLevel": WORD[:16].upper()},
        {"PatientComments": WORD, "OtherPatientIDs": WORD},
    ):
        keys = Dataset()
        keys.QueryRetrieveLevel = "STUDY"
        for keyword, value in values.items():
            setattr(keys, keyword, value)
        yield keys


def files(folder: object) -> None:
    """Broken and whole files for an import; their names say nothing."""
    from pathlib import Path

    for number, raw in enumerate((part10(planted()), *crooked())):
        Path(str(folder), f"{number}.dcm").write_bytes(raw)
    Path(str(folder), "note.json").write_text(json.dumps({"name": NAME}))
    Path(str(folder), "broken.zip").write_bytes(b"PK\x03\x04" + WORD.encode() * 9)
    with io.BytesIO() as held:
        held.write(WORD.encode())
        Path(str(folder), "DICOMDIR").write_bytes(held.getvalue())
