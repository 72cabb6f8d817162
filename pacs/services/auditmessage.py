"""Rows of the audit trail as DICOM audit messages (PS3.15 A.5), in the frame of RFC 5424 and 5425."""

import os
import socket
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

Row = Mapping[str, Any]

# facility 10 (security), severity 5 (normal but significant): what collectors of audit messages expect
PRIORITY = 10 * 8 + 5
MESSAGE_ID = "DICOM+RFC3881"  # PS3.15 A.6
LONGEST_NAME = 48  # of PROCID and APP-NAME in RFC 5424 6
OUTCOMES = {"ok": "0", "refused": "4", "failed": "8"}
APPLICATION_SERVER = "4"
ADDRESS = "2"  # NetworkAccessPointTypeCode


@dataclass(frozen=True, slots=True)
class Coded:
    """A code with its meaning."""

    code: str
    meaning: str
    system: str = "DCM"


@dataclass(frozen=True, slots=True)
class Event:
    """What kind of event a row is (CID 400, CID 401), and who gives objects to whom."""

    id: Coded
    act: str  # create, read, update, delete, execute
    type: Coded | None = None
    brings: bool = False  # the user is the source of objects, not their destination


ACTIVITY = Event(Coded("110100", "Application Activity"), "E")
ACCESS = Coded("110103", "DICOM Instances Accessed")
AUTHENTICATION, ALERT = Coded("110114", "User Authentication"), Coded("110113", "Security Alert")
EVENTS: Mapping[str, Event] = {
    "store": Event(Coded("110104", "DICOM Instances Transferred"), "C", brings=True),
    "send": Event(Coded("110104", "DICOM Instances Transferred"), "R"),
    "read": Event(ACCESS, "R"),
    "review": Event(ACCESS, "U"),
    "hold": Event(ACCESS, "U"),
    "lift-hold": Event(ACCESS, "U"),
    "delete": Event(Coded("110105", "DICOM Study Deleted"), "D"),
    "search": Event(Coded("110112", "Query"), "E"),
    "audit": Event(Coded("110101", "Audit Log Used"), "R"),
    "login": Event(AUTHENTICATION, "E", Coded("110122", "Login")),
    "logout": Event(AUTHENTICATION, "E", Coded("110123", "Logout")),
    "accounts": Event(ALERT, "E", Coded("110137", "User Security Attributes Changed")),
    "associate": Event(ALERT, "E", Coded("110126", "Node Authentication")),
}
SOURCE, DESTINATION = Coded("110153", "Source Role ID"), Coded("110152", "Destination Role ID")
PATIENT_NUMBER, CRITERIA = Coded("2", "Patient Number", "RFC-3881"), Coded("10", "Search Criteria", "RFC-3881")
STUDY_UID = Coded("110180", "Study Instance UID")
DETAILS = ("row", "route", "service", "times")
PERSON, SYSTEM = "1", "2"  # ParticipantObjectTypeCode
PATIENT_ROLE, REPORT_ROLE, QUERY_ROLE = "1", "3", "24"


def xml(row: Row, title: str, host: str) -> str:
    """One row as a message, on one line (PS3.15 A.5.1). `title` is our AE title, `host` this machine."""
    event = EVENTS.get(row["action"], ACTIVITY)
    root = Element("AuditMessage")
    root.append(_event(row, event))
    theirs, ours = (SOURCE, DESTINATION) if event.brings else (DESTINATION, SOURCE)
    asker = {"UserID": _clean(row["actor"]) or "unknown", "UserIsRequestor": "true"}
    if row["address"]:
        asker |= {"NetworkAccessPointID": _clean(row["address"]), "NetworkAccessPointTypeCode": ADDRESS}
    user = SubElement(root, "ActiveParticipant", asker)
    user.append(_coded("RoleIDCode", theirs))
    node = SubElement(root, "ActiveParticipant", UserID=title, UserIsRequestor="false")
    node.append(_coded("RoleIDCode", ours))
    origin = SubElement(root, "AuditSourceIdentification", AuditSourceID=f"{title}@{host}")
    SubElement(origin, "AuditSourceTypeCode", {"csd-code": APPLICATION_SERVER})
    root.extend(_objects(row))
    return tostring(root, encoding="unicode")


def _event(row: Row, event: Event) -> Element:
    element = Element(
        "EventIdentification",
        EventActionCode=event.act,
        EventDateTime=_time(row["at"]),
        EventOutcomeIndicator=OUTCOMES.get(row["outcome"], "8"),
    )
    element.append(_coded("EventID", event.id))
    if event.type is not None:
        element.append(_coded("EventTypeCode", event.type))
    SubElement(element, "EventOutcomeDescription").text = f"{row['door']} {row['action']} {row['outcome']}"
    return element


def _objects(row: Row) -> Iterator[Element]:
    """Whom and what it was about: patients, the study, and for a search what was asked."""
    for patient in [row["patient_id"]] if row["patient_id"] else row["detail"].get("patients", ()):
        element = _object(patient, PERSON, PATIENT_ROLE, PATIENT_NUMBER)
        SubElement(element, "ParticipantObjectName")  # the trail knows no names
        yield element
    if row["study_uid"]:
        element = _object(row["study_uid"], SYSTEM, REPORT_ROLE, STUDY_UID)
        SubElement(element, "ParticipantObjectName")
        _detail(element, row)
        if row["sop_instance_uid"]:
            described = SubElement(element, "ParticipantObjectDescription")
            classes = SubElement(described, "SOPClass", NumberOfInstances="1")
            SubElement(classes, "Instance", UID=row["sop_instance_uid"])
        yield element
    else:
        element = _object(row["action"], SYSTEM, QUERY_ROLE, CRITERIA)
        SubElement(element, "ParticipantObjectQuery").text = _base64(str(row["detail"].get("asked", "")))
        _detail(element, row)
        yield element


def _object(id: str, kind: str, role: str, type: Coded) -> Element:
    element = Element(
        "ParticipantObjectIdentification",
        ParticipantObjectID=_clean(id),
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    element.append(_coded("ParticipantObjectIDTypeCode", type))
    return element


def _detail(element: Element, row: Row) -> None:
    """The number of the row, and how the access was made."""
    told = {"row": row["id"], **row["detail"]}
    for name in DETAILS:
        if name in told:
            SubElement(element, "ParticipantObjectDetail", type=name, value=_base64(str(told[name])))


def _coded(name: str, coded: Coded) -> Element:
    return Element(name, {"csd-code": coded.code, "codeSystemName": coded.system, "originalText": coded.meaning})


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode("ascii")


def _clean(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def syslog(row: Row, title: str) -> bytes:
    """The message in its syslog header (RFC 5424 6) and with its length before it (RFC 5425 4.3)."""
    host = _word(socket.gethostname(), 255)
    head = f"<{PRIORITY}>1 {_time(row['at'])} {host} filmroom {os.getpid()} {MESSAGE_ID} - "
    message = head.encode("ascii") + b"\xef\xbb\xbf" + xml(row, title, host).encode()
    return b"%d %s" % (len(message), message)


def _word(text: str, longest: int) -> str:
    """Printable ASCII without blanks, as the header wants it; `-` where nothing is left."""
    return "".join(c for c in text if "!" <= c <= "~")[:longest] or "-"
