"""A-ASSOCIATE-RQ and A-ASSOCIATE-AC (PS3.8 9.3.2, 9.3.3 and PS3.7 D.3.3): bytes to values and back.

Our own codec and not pynetdicom's: that one takes 250 ms for a request of 128 contexts, in which the event loop
would serve nobody, and was not written for hostile bytes. Here every length is checked against what encloses it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from pacs.dimse.pdu import HEADER, PduType, ProtocolError

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
PROTOCOL_VERSION = 1  # bit 0
MAX_UID = 64

_ITEM = struct.Struct(">BxH")
_FIXED = struct.Struct(">H2x16s16s32x")
FIXED_SIZE = _FIXED.size
_LENGTH = struct.Struct(">H")
_LONG = struct.Struct(">L")
_PAIR = struct.Struct(">HH")

_APPLICATION, _PROPOSED, _ANSWERED = 0x10, 0x20, 0x21
_ABSTRACT, _TRANSFER, _USER = 0x30, 0x40, 0x50
_MAX_LENGTH, _CLASS_UID, _WINDOW, _ROLE, _VERSION = 0x51, 0x52, 0x53, 0x54, 0x55
_EXTENDED, _IDENTITY, _IDENTITY_ANSWER = 0x56, 0x58, 0x59


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context as asked for; the transfer syntaxes in the requestor's order."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextResult:
    """The answer to one proposed context; `result` of PS3.8 table 9-18."""

    context_id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Role:
    """SCP/SCU role selection for one SOP class (PS3.7 D.3.3.4)."""

    sop_class_uid: str
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """User identity (PS3.7 D.3.3.7): 1 name, 2 name and passcode, 3 Kerberos, 4 SAML, 5 JWT."""

    kind: int
    answer_wanted: bool
    primary: bytes = field(repr=False)
    secondary: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserInformation:
    """What both PDUs carry about their sender."""

    max_pdu: int = 0
    implementation_class_uid: str = ""
    implementation_version: str = ""
    window: tuple[int, int] | None = None  # operations invoked, performed; None: not negotiated, that is (1, 1)
    roles: tuple[Role, ...] = ()
    extended: tuple[tuple[str, bytes], ...] = ()  # SOP class and its service class application information
    identity: Identity | None = None
    identity_answer: bytes | None = None


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """A-ASSOCIATE-RQ. AE titles without their padding."""

    called: str
    calling: str
    contexts: tuple[ProposedContext, ...]
    user: UserInformation
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """A-ASSOCIATE-AC. The titles are the request's, echoed (PS3.8 table 9-17)."""

    called: str
    calling: str
    results: tuple[ContextResult, ...]
    user: UserInformation


# decode


def decode_request(body: bytes) -> AssociateRequest:
    """What follows the header of an A-ASSOCIATE-RQ. Raises ProtocolError and nothing else."""
    version, called, calling = _fixed(body)
    application, contexts, user = "", [], UserInformation()
    for kind, value in _items(memoryview(body)[FIXED_SIZE:]):
        if kind == _APPLICATION:
            application = _uid(value)
        elif kind == _PROPOSED:
            contexts.append(_proposed(value))
        elif kind == _USER:
            user = _user(value)
    _require_unique([c.context_id for c in contexts])
    return AssociateRequest(called, calling, tuple(contexts), user, application, version)


def decode_accept(body: bytes) -> AssociateAccept:
    """What follows the header of an A-ASSOCIATE-AC. Raises ProtocolError and nothing else."""
    _, called, calling = _fixed(body)
    results, user = [], UserInformation()
    for kind, value in _items(memoryview(body)[FIXED_SIZE:]):
        if kind == _ANSWERED:
            results.append(_answered(value))
        elif kind == _USER:
            user = _user(value)
    _require_unique([r.context_id for r in results])
    return AssociateAccept(called, calling, tuple(results), user)


def _fixed(body: bytes) -> tuple[int, str, str]:
    if len(body) < FIXED_SIZE:
        raise ProtocolError("An A-ASSOCIATE PDU ends within its fixed fields.")
    version, called, calling = _FIXED.unpack_from(body)
    return version, _title(called), _title(calling)


def _title(field_bytes: bytes) -> str:
    return field_bytes.decode("ascii", "replace").strip(" \0")


def _items(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    offset, end = 0, len(body)
    while offset < end:
        if offset + _ITEM.size > end:
            raise ProtocolError("An item of an A-ASSOCIATE PDU ends within its header.")
        kind, length = _ITEM.unpack_from(body, offset)
        offset += _ITEM.size
        if offset + length > end:
            raise ProtocolError("An item of an A-ASSOCIATE PDU is longer than what encloses it.")
        yield kind, body[offset : offset + length]
        offset += length


def _require_unique(context_ids: list[int]) -> None:
    if len(set(context_ids)) != len(context_ids) or any(number % 2 == 0 for number in context_ids):
        raise ProtocolError("Presentation context IDs are not odd and unique.")


def _uid(value: memoryview) -> str:
    text = bytes(value).decode("ascii", "replace").rstrip("\0 ")
    if len(text) > MAX_UID:
        raise ProtocolError("A UID of an A-ASSOCIATE PDU is longer than 64 characters.")
    return text


def _proposed(value: memoryview) -> ProposedContext:
    number, rest = _context_head(value)
    abstract, transfers = "", []
    for kind, inner in _items(rest):
        if kind == _ABSTRACT:
            abstract = _uid(inner)
        elif kind == _TRANSFER:
            transfers.append(_uid(inner))
    if not abstract or not transfers:
        raise ProtocolError("A presentation context has no abstract or no transfer syntax.")
    return ProposedContext(number, abstract, tuple(transfers))


def _answered(value: memoryview) -> ContextResult:
    number, rest = _context_head(value)
    transfer = next((_uid(inner) for kind, inner in _items(rest) if kind == _TRANSFER), "")
    return ContextResult(number, value[2], transfer)


def _context_head(value: memoryview) -> tuple[int, memoryview]:
    if len(value) < 4:
        raise ProtocolError("A presentation context item ends within its header.")
    return value[0], value[4:]


def _user(value: memoryview) -> UserInformation:
    found: dict[str, object] = {}
    roles: list[Role] = []
    extended: list[tuple[str, bytes]] = []
    for kind, inner in _items(value):
        if kind == _ROLE:
            roles.append(_role(inner))
        elif kind == _EXTENDED:
            extended.append(_prefixed(inner))
        elif kind in _USER_ITEMS:
            name, decode = _USER_ITEMS[kind]
            found[name] = decode(inner)
    return UserInformation(roles=tuple(roles), extended=tuple(extended), **found)  # type: ignore[arg-type]


def _role(value: memoryview) -> Role:
    uid, rest = _split(value)
    if len(rest) < 2:
        raise ProtocolError("A role selection item ends too early.")
    return Role(_uid(uid), rest[0] == 1, rest[1] == 1)


def _prefixed(value: memoryview) -> tuple[str, bytes]:
    uid, rest = _split(value)
    return _uid(uid), bytes(rest)


def _identity(value: memoryview) -> Identity:
    if len(value) < 2:
        raise ProtocolError("A user identity item ends too early.")
    primary, rest = _split(value[2:])
    secondary, _ = _split(rest)
    return Identity(value[0], value[1] == 1, bytes(primary), bytes(secondary))


def _identity_answer(value: memoryview) -> bytes:
    return bytes(_split(value)[0])


def _split(value: memoryview) -> tuple[memoryview, memoryview]:
    """A field with a 16-bit length before it, and the rest."""
    if len(value) < 2:
        raise ProtocolError("A sub-item of the user information ends within a length.")
    (length,) = _LENGTH.unpack_from(value)
    if len(value) < 2 + length:
        raise ProtocolError("A field of the user information is longer than its item.")
    return value[2 : 2 + length], value[2 + length :]


def _max_length(value: memoryview) -> int:
    if len(value) != _LONG.size:
        raise ProtocolError("The maximum length item has not four bytes.")
    return int(_LONG.unpack(value)[0])


def _window(value: memoryview) -> tuple[int, int]:
    if len(value) != _PAIR.size:
        raise ProtocolError("The asynchronous operations window item has not four bytes.")
    invoked, performed = _PAIR.unpack(value)
    return invoked, performed


def _version(value: memoryview) -> str:
    return bytes(value[:16]).decode("ascii", "replace").strip(" \0")


_USER_ITEMS = {
    _MAX_LENGTH: ("max_pdu", _max_length),
    _CLASS_UID: ("implementation_class_uid", _uid),
    _WINDOW: ("window", _window),
    _VERSION: ("implementation_version", _version),
    _IDENTITY: ("identity", _identity),
    _IDENTITY_ANSWER: ("identity_answer", _identity_answer),
}


# encode


def encode_request(request: AssociateRequest) -> bytes:
    """The whole A-ASSOCIATE-RQ PDU."""
    contexts = b"".join(_encode_proposed(context) for context in request.contexts)
    return _encode(PduType.ASSOCIATE_RQ, request.called, request.calling, contexts, request.user)


def encode_accept(accept: AssociateAccept) -> bytes:
    """The whole A-ASSOCIATE-AC PDU."""
    results = b"".join(_encode_result(result) for result in accept.results)
    return _encode(PduType.ASSOCIATE_AC, accept.called, accept.calling, results, accept.user)


def _encode(kind: PduType, called: str, calling: str, contexts: bytes, user: UserInformation) -> bytes:
    titles = (title.encode("ascii", "replace")[:16].ljust(16) for title in (called, calling))
    body = _FIXED.pack(PROTOCOL_VERSION, *titles) + _item(_APPLICATION, APPLICATION_CONTEXT.encode("ascii"))
    body += contexts + _item(_USER, _encode_user(user))
    return HEADER.pack(kind, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _text(kind: int, text: str) -> bytes:
    return _item(kind, text.encode("ascii", "replace"))


def _counted(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _encode_proposed(context: ProposedContext) -> bytes:
    syntaxes = b"".join(_text(_TRANSFER, uid) for uid in context.transfer_syntaxes)
    return _item(_PROPOSED, bytes((context.context_id, 0, 0, 0)) + _text(_ABSTRACT, context.abstract_syntax) + syntaxes)


def _encode_result(result: ContextResult) -> bytes:
    head = bytes((result.context_id, 0, result.result, 0))
    return _item(_ANSWERED, head + _text(_TRANSFER, result.transfer_syntax))


def _encode_user(user: UserInformation) -> bytes:
    parts = [_item(_MAX_LENGTH, _LONG.pack(user.max_pdu)), _text(_CLASS_UID, user.implementation_class_uid)]
    if user.window is not None:
        parts.append(_item(_WINDOW, _PAIR.pack(*user.window)))
    parts += [
        _item(_ROLE, _counted(role.sop_class_uid.encode("ascii")) + bytes((role.scu, role.scp))) for role in user.roles
    ]
    if user.implementation_version:
        parts.append(_text(_VERSION, user.implementation_version[:16]))
    parts += [_item(_EXTENDED, _counted(uid.encode("ascii")) + value) for uid, value in user.extended]
    if user.identity is not None:
        identity = user.identity
        fields = _counted(identity.primary) + _counted(identity.secondary)
        parts.append(_item(_IDENTITY, bytes((identity.kind, identity.answer_wanted)) + fields))
    if user.identity_answer is not None:
        parts.append(_item(_IDENTITY_ANSWER, _counted(user.identity_answer)))
    return b"".join(parts)
