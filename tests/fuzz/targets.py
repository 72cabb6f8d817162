"""What is fuzzed: each target takes any bytes and must come back soon, by an answer or by an error of its own kind.

A target is a function of bytes; `seeds` are inputs that it takes, from which others are made by mutation.
"""

import json
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydicom.data import get_testdata_file

from dicomweb import multipart
from pacs.dimse import associate, command, identifier, pdu
from pacs.dimse.associate import AssociateAccept, AssociateRequest, ContextResult, ProposedContext, UserInformation
from pacs.dimse.command import Field
from pacs.dimse.limits import Limits
from pacs.dimse.pdu import ProtocolError
from pacs.dimse.protocol import Accepted, Protocol, Requested
from pacs.dimse.states import OVER
from pacs.dimse.worklist import read, wanted
from pacs.domain import admission, header, jsonmodel, worklist
from pacs.domain.admission import Inadmissible
from pacs.domain.attributes import Rule
from pacs.domain.levels import Level
from pacs.domain.matching import matches, normal_values, parse
from pacs.domain.syntaxes import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from pacs.errors import BadRequest, Refused

VERIFICATION, CT = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"
PLAIN = (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE)
CONTEXTS = (ProposedContext(1, VERIFICATION, PLAIN), ProposedContext(3, CT, PLAIN))
ACCEPT = AssociateAccept("FILMROOM", "X", tuple(ContextResult(n, 0, IMPLICIT_LE) for n in (1, 3)), UserInformation())
SMALL = admission.Limits(inflated=8 << 20, inflated_freely=8 << 20)


@dataclass(frozen=True)
class Target:
    """`run` raises for a finding only; `seeds` makes inputs that are taken."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


# pieces: the first byte of an input says how it is cut, so that boundaries are fuzzed as well


def _pieces(data: bytes) -> list[bytes]:
    size = (data[0] if data else 0) or 4_096
    return [data[at : at + size] for at in range(1, len(data), size)]


def acceptor(data: bytes) -> None:
    """The door's half of the protocol."""
    protocol = Protocol(Limits())
    with suppress(ProtocolError):
        for piece in _pieces(data):
            view, position = memoryview(piece), 0
            while position < len(view):
                before = position
                event, position = protocol.receive(view, position)
                assert position > before or event is not None
                if isinstance(event, Requested):
                    protocol.accept(ACCEPT)
                if protocol.state in OVER:
                    return
            assert len(protocol._scrap) + len(protocol._command) <= Limits().max_associate_pdu + Limits().max_command


def requestor(data: bytes) -> None:
    """Our half when we call."""
    protocol = Protocol(Limits(), requestor=True)
    protocol.request(AssociateRequest("X", "FILMROOM", CONTEXTS, UserInformation()))
    with suppress(ProtocolError):
        for piece in _pieces(data):
            view, position = memoryview(piece), 0
            while position < len(view) and protocol.state not in OVER:
                event, position = protocol.receive(view, position)
                if isinstance(event, Accepted):
                    protocol.message(1, b"")


def associations(data: bytes) -> None:
    """Both association PDUs, and back again."""
    with suppress(ProtocolError):
        found = associate.decode_request(data)
        associate.encode_request(found)
    with suppress(ProtocolError):
        associate.decode_accept(data)


def commands(data: bytes) -> None:
    """A command set, and the answer to it."""
    with suppress(ProtocolError):
        command.response(command.decode(data), 0)


def multiparts(data: bytes) -> None:
    """A STOW-RS body."""
    reader, size = multipart.Reader("boundary"), 0
    with suppress(BadRequest):
        for piece in _pieces(data):
            for event in reader.feed(piece):
                if isinstance(event, multipart.PartData):
                    size += len(event.data)
        reader.close()
    assert size <= len(data)


def objects(data: bytes) -> None:
    """An object as STOW or import brings it: admission, header, metadata."""
    with suppress(Inadmissible):
        admitted = admission.admit(data, limits=SMALL, nested=True)
        header.extract(admitted, data, door="stow")
        shown = jsonmodel.to_json(data, admitted=admitted)
        json.dumps(shown, allow_nan=False).encode("utf-8")


def data_sets(data: bytes) -> None:
    """A bare data set in each encoding, as C-STORE brings it."""
    for syntax in (*PLAIN, DEFLATED_LE):
        with suppress(Inadmissible):
            admission.admit(data, raw_syntax=syntax, limits=SMALL)


def identifiers(data: bytes) -> None:
    """C-FIND's and C-MOVE's identifiers."""
    for syntax in PLAIN:
        for root in (Level.PATIENT, Level.STUDY):
            with suppress(BadRequest, Refused):
                identifier.parse(data, syntax, root)
            with suppress(BadRequest, Refused):
                identifier.parse_retrieval(data, syntax, root)


def worklists(data: bytes) -> None:
    """A worklist's identifier, and an item of its own shape matched by it."""
    for syntax in PLAIN:
        with suppress(BadRequest, Refused):
            keys = read(data, syntax)
            wanted(keys)
            worklist.compiled(keys).finds(keys)


def keys(data: bytes) -> None:
    """A key's value against a value, for every rule; a zero byte between them."""
    key, _, value = data.decode("utf-8", "surrogateescape").partition("\0")
    for rule in Rule:
        with suppress(BadRequest):
            for fuzzy in (False, True):
                matches(parse(rule, [key], fuzzy=fuzzy), normal_values(rule, value.split("\\")))


def json_items(data: bytes) -> None:
    """DICOM JSON from outside, as the worklist's resource takes it."""
    with suppress(ValueError, RecursionError, BadRequest):  # of the parser, before anything of ours
        item = worklist.require_dicom_json(json.loads(data))
        with suppress(BadRequest):
            from pacs.services.worklist import _row

            _row(item)


# seeds


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


@cache
def _samples() -> list[bytes]:
    names = ("CT_small.dcm", "JPEG2000.dcm", "SC_rgb_rle.dcm", "reportsi.dcm", "nested_priv_SQ.dcm", "image_dfl.dcm")
    found = [Path(str(get_testdata_file(name, download=False))).read_bytes() for name in names]
    return [data if len(data) < 200_000 else data[:200_000] for data in found]


def _sessions() -> list[bytes]:
    request = associate.encode_request(AssociateRequest("FILMROOM", "X", CONTEXTS, UserInformation(16_384)))
    echo = {"MessageID": 1, "CommandDataSetType": 0x0101, "CommandField": Field.C_ECHO_RQ}
    store = {"MessageID": 2, "CommandDataSetType": 1, "CommandField": Field.C_STORE_RQ, "AffectedSOPClassUID": CT}
    whole = request + pdu.message(1, command.encode(echo), None, 200)
    whole += pdu.message(3, command.encode(store), bytes(500), 128) + pdu.RELEASE_RQ
    return [bytes([size]) + whole for size in (0, 1, 7)] + [b"\0" + request]


def _answers() -> list[bytes]:
    accept = associate.encode_accept(ACCEPT)
    answer = {"MessageIDBeingRespondedTo": 1, "CommandDataSetType": 0x0101, "CommandField": 0x8030, "Status": 0}
    endings = (pdu.RELEASE_RQ, pdu.RELEASE_RP, pdu.encode_rejection(pdu.Rejection(1, 1, 1)))
    return [b"\0" + accept + pdu.message(1, command.encode(answer), None, 200) + ending for ending in endings]


def _bodies() -> list[bytes]:
    part = b"--boundary\r\nContent-Type: application/dicom\r\n\r\n" + bytes(range(256)) + b"\r\n"
    return [bytes([size]) + part * count + b"--boundary--\r\n" for size in (0, 1, 5) for count in (1, 3)]


def _data_sets() -> list[bytes]:
    explicit = _element(0x00080016, b"UI", CT.encode() + b"\0") + _element(0x00100010, b"PN", b"A^B ")
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 8) + struct.pack("<HHL", 0x0008, 0x0100, 0)
    sequence = struct.pack("<HH2s2xL", 0x0040, 0x0100, b"SQ", len(item)) + item
    packer = zlib.compressobj(wbits=-15)
    deflated = packer.compress(explicit + bytes(1_000)) + packer.flush()
    return [explicit, explicit + sequence, _implicit(), deflated]


def _implicit() -> bytes:
    level = struct.pack("<HHL", 0x0008, 0x0052, 6) + b"STUDY "
    name = struct.pack("<HHL", 0x0010, 0x0010, 4) + b"A^* "
    step = struct.pack("<HHL", 0x0040, 0x0002, 18) + b"20260101-20260201 "
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(step)) + step
    return level + name + struct.pack("<HHL", 0x0040, 0x0100, len(item)) + item


def _items() -> list[bytes]:
    step = {"00400001": {"vr": "AE", "Value": ["CT1"]}, "00080060": {"vr": "CS", "Value": ["CT"]},
            "00400002": {"vr": "DA", "Value": ["20260101"]}, "00400003": {"vr": "TM", "Value": ["10"]}}  # fmt: skip
    item = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]},
        "00100020": {"vr": "LO", "Value": ["1"]},
        "00101030": {"vr": "DS", "Value": [80.5]},
        "00400100": {"vr": "SQ", "Value": [step]},
    }
    return [json.dumps(item).encode()]


TARGETS: dict[str, Target] = {
    "acceptor": Target(acceptor, _sessions),
    "requestor": Target(requestor, _answers),
    "associations": Target(associations, lambda: [session[7:300] for session in _sessions()]),
    "commands": Target(
        commands, lambda: [command.encode({"CommandField": 1, "CommandDataSetType": 1, "AffectedSOPClassUID": CT})]
    ),
    "multiparts": Target(multiparts, _bodies),
    "objects": Target(objects, _samples),
    "data_sets": Target(data_sets, _data_sets),
    "identifiers": Target(identifiers, lambda: [_implicit(), *_data_sets()]),
    "worklists": Target(worklists, lambda: [_implicit(), *_data_sets()]),
    "keys": Target(
        keys,
        lambda: [
            b"20260101-\x0020260102",
            b"a*?b\0axb",
            b"1.2\\1.3\x001.2",
            b"M\xc3\xbcller^*=x\0Muller^J",
            b"-1.5e3\0-1500",
        ],
    ),
    "json_items": Target(json_items, _items),
}
