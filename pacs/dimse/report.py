"""Reports on storage commitment by an association of ours (PS3.4 J.3.3): the clerk's duty, again until it is heard."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from pacs.dimse import commit
from pacs.dimse.associate import ProposedContext, Role
from pacs.dimse.requestor import Association, Destination, Patience, destination
from pacs.domain.syntaxes import EXPLICIT_LE, IMPLICIT_LE
from pacs.errors import FilmroomError, SettingsError, Unavailable
from pacs.services.commitment import Verdict, Waiting
from pacs.services.duties import Duty
from pacs.services.peers import PeerBook

if TYPE_CHECKING:
    from pacs.node import Node

AT_ONCE = 16
THREADS = 4
PATIENCE = Patience(connect=5.0, association=10.0, network=10.0, response=30.0)
PROPOSED = (ProposedContext(1, commit.PUSH_MODEL, (EXPLICIT_LE, IMPLICIT_LE)),)
AS_SCP = (Role(commit.PUSH_MODEL, False, True),)  # we ask for the association and are the SCP (PS3.4 J.3.3)
log = structlog.get_logger()


def report(node: "Node") -> None:
    """Report what is due. Raises Unavailable and SettingsError."""
    due = node.commitments.take(AT_ONCE)
    if not due:
        return
    peers = PeerBook(node.settings.peers_file, required=node.settings.dicom_peers is not None)
    with ThreadPoolExecutor(THREADS, "commitment") as threads:
        for done in [threads.submit(_report, node, peers, waiting) for waiting in due]:
            done.result()


def _report(node: "Node", peers: PeerBook, waiting: Waiting) -> None:
    try:
        peer = peers.get(waiting.peer)
        if peer is None:
            raise SettingsError(f"{waiting.peer} asked for storage commitment and is not in the peers file.")
        verdict = node.commitments.check(waiting.id)
        deliver(verdict, destination(peer, node.settings), node.settings.dicom_ae_title.strip())
        node.commitments.reported(waiting.id)
        log.info("commitment_reported", peer=waiting.peer, kept=len(verdict.kept), failed=len(verdict.failed))
    except FilmroomError as error:
        log.warning("commitment_not_reported", peer=waiting.peer, given_up=waiting.last, reason=error.message)
        node.commitments.failed(waiting, error.message)


def deliver(verdict: Verdict, to: Destination, title: str, patience: Patience = PATIENCE) -> None:
    """One report by an association of its own. Raises NoAssociation, Lost, Unavailable."""
    with Association(to, title, PROPOSED, AS_SCP, patience) as association:
        if not association.contexts:
            raise Unavailable(f"{to.title} does not take reports on storage commitment.")
        context = association.contexts[0]
        data = commit.information(verdict, context.transfer_syntax, title)
        answer = association.request(context, commit.event(verdict), data)
        if answer.status != 0:
            raise Unavailable(f"{to.title} answered {answer.status:#06x} to a report on storage commitment.")


DUTIES = (Duty("commitment", 1.0, report),)
