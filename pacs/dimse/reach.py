"""C-ECHO to a peer (PS3.7 9.1.5): whether it can be reached and takes us for whom we are."""

from pacs.dimse.associate import ProposedContext
from pacs.dimse.command import Field, Value
from pacs.dimse.requestor import Association, NoAssociation, Patience, destination
from pacs.domain.syntaxes import EXPLICIT_LE, IMPLICIT_LE
from pacs.domain.uids import VERIFICATION
from pacs.services.peers import Peer
from pacs.settings import Settings

PATIENCE = Patience(connect=5.0, association=10.0, network=10.0, response=10.0)
_CONTEXT = ProposedContext(1, VERIFICATION, (IMPLICIT_LE, EXPLICIT_LE))


def echo(peer: Peer, settings: Settings) -> None:
    """Returns when the peer has answered with success. Raises SettingsError, NoAssociation or Lost saying why not."""
    title = settings.dicom_ae_title.strip()
    with Association(destination(peer, settings), title, (_CONTEXT,), patience=PATIENCE) as association:
        if not association.contexts:
            raise NoAssociation(f"{peer.title} takes our association, but no C-ECHO in it.")
        asked: dict[str, Value] = {"CommandField": Field.C_ECHO_RQ, "AffectedSOPClassUID": VERIFICATION}
        answer = association.request(association.contexts[0], asked)
        if answer.status:
            raise NoAssociation(f"{peer.title} answered C-ECHO with status {answer.status:#06x}.")
