"""What is done with an object before it waits for disk and database: it is read, judged and given its name and row."""

from dataclasses import dataclass
from typing import NoReturn

from pacs.domain import admission, header
from pacs.domain.admission import Admitted
from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.events import Expected
from pacs.domain.header import Header
from pacs.domain.levels import Level
from pacs.errors import Reason
from pacs.index import write
from pacs.index.write import File, Item
from pacs.services import verify
from pacs.services.incoming import Incoming
from pacs.services.part10 import head
from pacs.store.base import Draft, Store, StoreFailed, StoreFull

COPY_BYTES = 1 << 20
PATIENT_ID = BY_KEYWORD["PatientID"].column or ""


class Unfit(Exception):
    """An object that is not taken in: why, and what it is by its own word."""

    def __init__(self, named: Expected, reason: Reason, message: str, patient_id: str = "") -> None:
        super().__init__(message)
        self.named, self.reason, self.message, self.patient_id = named, reason, message, patient_id


class Deflated(Exception):
    """The object is for the thread that inflates, so that the others stay free for what needs no such care."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An object that is fit: what it says, its published file, and its row."""

    header: Header
    file: File
    item: Item
    draft: Draft
    warnings: tuple[str, ...]


class Preparation:
    """Looks at objects one by one; any number of threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._memory = header.Memory()

    def prepare(self, incoming: Incoming, *, inflate: bool) -> Prepared:
        """Admit the object and give its file a name. Raises Unfit, or Deflated unless it is to `inflate`."""
        admitted, found = self._read(incoming, inflate)
        for reason, message in verify.faults(admitted, found, incoming.expected):
            raise unfit(incoming, found, reason, message)
        try:
            draft, data_offset = self._filed(incoming, admitted, found)
            sha256, data_sha256 = draft.digests(data_offset)
            name = draft.publish()
        except StoreFull:
            message = "The file store has no space left; free space on its disk."
            raise unfit(incoming, found, Reason.OUT_OF_SPACE, message) from None
        except StoreFailed:
            message = "The file store cannot write; look at the log and the disk."
            raise unfit(incoming, found, Reason.OUT_OF_SPACE, message) from None
        file = File(name, draft.size, data_offset, sha256, data_sha256, admitted.transfer_syntax_uid)
        source = incoming.source
        item = write.item(found, file, source.door, source.peer, source.address)
        warnings = tuple(dict.fromkeys((*incoming.warnings, *admitted.warnings, *found.warnings)))
        return Prepared(found, file, item, draft, warnings)

    def _read(self, incoming: Incoming, inflate: bool) -> tuple[Admitted, Header]:
        with incoming.draft.view() as view:
            try:
                admitted = admission.admit(view, before_inflating=bool if inflate else _leave_to_the_other)
            except admission.Inadmissible as error:
                message = f"The object cannot be read: {error.message}."
                raise Unfit(incoming.expected, Reason.UNREADABLE, message) from None
            found = header.extract(admitted, view, door=incoming.source.door, memory=self._memory)
            if admitted.data is not None:
                admitted.data = b""  # all that is needed of it is in the header now, and it may be large
            return admitted, found

    def _filed(self, incoming: Incoming, admitted: Admitted, found: Header) -> tuple[Draft, int]:
        """The file to keep, and where its data set begins: as received, unless its head is missing or wrong."""
        if not verify.needs_head(admitted):
            return incoming.draft, admitted.data_offset
        start = head(found.sop_class_uid, found.sop_instance_uid, admitted.transfer_syntax_uid, incoming.source.peer)
        draft = self._store.draft()
        try:
            draft.write(start)
            with incoming.draft.view() as view:
                for place in range(admitted.data_offset, len(view), COPY_BYTES):
                    draft.write(view[place : place + COPY_BYTES])
        except (StoreFull, StoreFailed):
            draft.discard()
            raise
        incoming.abort()
        incoming.draft, incoming.settling = draft, None
        return draft, len(start)


def unfit(incoming: Incoming, found: Header, reason: Reason, message: str) -> Unfit:
    """Why an object is not taken in, with what it says itself, and its sender's word where it says nothing."""
    named = Expected(
        found.sop_class_uid or incoming.expected.sop_class_uid,
        found.sop_instance_uid or incoming.expected.sop_instance_uid,
        found.study_uid or incoming.expected.study_uid,
    )
    return Unfit(named, reason, message, found.columns[Level.PATIENT].get(PATIENT_ID, ""))


def _leave_to_the_other() -> NoReturn:
    raise Deflated
