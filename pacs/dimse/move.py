"""C-MOVE (PS3.4 C.4.2): the instances go to a peer of peers.toml, by one association of our own."""

from collections.abc import Mapping, Sequence

from pacs.dimse import proposals
from pacs.dimse.command import Command, Value
from pacs.dimse.operation import Context, Link
from pacs.dimse.proposals import Voyage
from pacs.dimse.requestor import Association, Destination, Lost, NoAssociation, Patience, destination
from pacs.dimse.retrieve import Impossible, Retrieve
from pacs.dimse.status import Status
from pacs.dimse.suboperations import Delivery
from pacs.domain.levels import Level
from pacs.errors import SettingsError
from pacs.services.outgoing import Candidate

MODELS = {"1.2.840.10008.5.1.4.1.2.1.2": Level.PATIENT, "1.2.840.10008.5.1.4.1.2.2.2": Level.STUDY}
PATIENCE = Patience(connect=5.0, association=15.0)  # a requester waits meanwhile
MOST_LOST = 3  # associations that break one after another before the rest is given up


class Move(Retrieve):
    """Sends to another application."""

    models = MODELS
    verb = "C-MOVE"

    def __init__(self, link: Link, context: Context, request: Command) -> None:
        super().__init__(link, context, request)
        self._title = request.text("MoveDestination")
        self._called: Destination | None = None
        self._open: Association | None = None

    def abort(self) -> None:
        super().abort()
        if self._open is not None:
            self._open.kill()

    def described(self) -> dict[str, str]:
        return {"destination": self._title}

    def prepare(self) -> None:
        peer = self.link.peers.get(self._title)
        if peer is None:
            raise Impossible(Status.MOVE_DESTINATION_UNKNOWN, "The move destination is no peer that we know.")
        try:
            self._called = destination(peer, self.link.node.settings)
        except SettingsError as error:
            text = "The move destination cannot be called; see the peers file."
            raise Impossible(Status.MOVE_DESTINATION_UNKNOWN, text) from error

    def deliver(self, candidates: Sequence[Candidate]) -> None:
        more: Mapping[str, Value] = {
            "MoveOriginatorApplicationEntityTitle": self.link.source.peer,
            "MoveOriginatorMessageID": self.request.message_id,
        }
        for voyage in proposals.voyages(candidates):
            delivery = Delivery(self.link.node.outgoing, voyage.candidates, self.tally, self, more)
            self._go(voyage, delivery)

    def _go(self, voyage: Voyage, delivery: Delivery) -> None:
        """Sail until all had their turn; a receiver that breaks off at one instance may take the next ones."""
        lost = tried = 0
        while delivery.tried < len(voyage.candidates) and not self.stopped():
            try:
                self._sail(voyage, delivery)
            except NoAssociation as error:
                self._give_up(voyage.candidates[delivery.tried :], error.message)
                return
            except Lost as error:
                lost = lost + 1 if delivery.tried <= tried + 1 else 1
                tried = delivery.tried
                if lost >= MOST_LOST:
                    self._give_up(voyage.candidates[delivery.tried :], error.message)
                    return

    def _sail(self, voyage: Voyage, delivery: Delivery) -> None:
        assert self._called is not None
        with Association(self._called, self.link.title, voyage.proposed, patience=PATIENCE) as association:
            self._open = association
            try:
                delivery.run(association)
            finally:
                self._open = None

    def _give_up(self, candidates: Sequence[Candidate], why: str) -> None:
        self.remark = why
        for candidate in candidates:
            self.tally.note(candidate.sop_instance_uid, Status.SUBOPERATIONS_FAILED)
