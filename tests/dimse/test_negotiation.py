import pytest

from pacs.dimse.associate import AssociateRequest, ProposedContext, Role, UserInformation
from pacs.dimse.limits import Limits
from pacs.dimse.negotiation import Load, Refusal, judge, negotiate
from pacs.dimse.services import catalogue
from pacs.domain import uids
from pacs.domain.syntaxes import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from pacs.services.peers import Peer

CT = "1.2.840.10008.5.1.4.1.1.2"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
JPEG = "1.2.840.10008.1.2.4.50"
PRIVATE = "1.2.826.0.1.3680043.8.498.1"
EMPTY = Load(0, 0, 0, 0)


def results(contexts: list[tuple[str, tuple[str, ...]]], peer: Peer | None = None) -> list[tuple[int, str]]:
    proposed = tuple(ProposedContext(2 * n + 1, a, t) for n, (a, t) in enumerate(contexts))
    accept, _ = negotiate(AssociateRequest("US", "X", proposed, UserInformation()), catalogue(), peer, Limits())
    return [(result.result, result.transfer_syntax if result.result == 0 else "") for result in accept.results]


def test_the_requestors_order_of_transfer_syntaxes_wins() -> None:
    offers = [(JPEG, EXPLICIT_LE), (IMPLICIT_LE, JPEG), ("1.2.3", EXPLICIT_BE)]
    assert results([(CT, offer) for offer in offers]) == [(0, JPEG), (0, IMPLICIT_LE), (0, EXPLICIT_BE)]


def test_a_peers_preference_wins_over_its_order() -> None:
    peer = Peer("X", transfer_syntaxes=("1.2.3", EXPLICIT_LE, IMPLICIT_LE))
    assert results([(CT, (IMPLICIT_LE, EXPLICIT_LE)), (CT, (JPEG,))], peer) == [(0, EXPLICIT_LE), (0, JPEG)]


def test_unknown_syntaxes_are_refused_by_their_kind() -> None:
    assert results([(PRIVATE, (IMPLICIT_LE,)), (CT, ("1.2.3",))]) == [(3, ""), (4, "")]


def test_a_service_that_is_not_built_is_refused() -> None:
    assert results([(UPS_PUSH, (IMPLICIT_LE,))]) == [(3, "")]


def test_a_private_class_of_the_peers_file_is_taken_from_that_peer() -> None:
    peer = Peer("X", storage_classes=(PRIVATE,))
    assert results([(PRIVATE, (JPEG,))], peer) == [(0, JPEG)]


def test_a_service_that_the_peer_may_not_use_is_refused() -> None:
    peer = Peer("X", services=frozenset({"echo"}))
    assert results([(CT, (IMPLICIT_LE,)), (uids.VERIFICATION, (IMPLICIT_LE,))], peer) == [(1, ""), (0, IMPLICIT_LE)]


def test_roles_are_answered_for_accepted_classes_only() -> None:
    asked = (Role(CT, True, True), Role(MOVE, True, True), Role(UPS_PUSH, True, True))
    user = UserInformation(roles=asked)
    proposed = tuple(ProposedContext(2 * n + 1, role.sop_class_uid, (IMPLICIT_LE,)) for n, role in enumerate(asked))
    accept, _ = negotiate(AssociateRequest("US", "X", proposed, user), catalogue(), None, Limits())
    assert accept.user.roles == (Role(CT, True, True), Role(MOVE, True, False))


@pytest.mark.parametrize(("asked", "given"), [(None, None), ((0, 0), (16, 1)), ((5, 9), (5, 1)), ((99, 1), (16, 1))])
def test_the_window_is_what_was_asked_up_to_ours(asked: tuple[int, int] | None, given: tuple[int, int] | None) -> None:
    request = AssociateRequest("US", "X", (), UserInformation(window=asked))
    assert negotiate(request, catalogue(), None, Limits())[0].user.window == given


def verdict(peer: Peer | None = None, local: bool = True, load: Load = EMPTY, **changes: object) -> Refusal | None:
    values = {"called": "US", "calling": "X", "contexts": (), "user": UserInformation(16_384), **changes}
    request = AssociateRequest(**values)  # type: ignore[arg-type]
    return judge(request, "US", peer, local=local, load=load, limits=Limits())


def test_a_stranger_is_welcome_on_loopback_only() -> None:
    assert verdict() is None
    assert verdict(local=False) is Refusal.CALLING_TITLE
    assert verdict(Peer("X"), local=False) is None


def test_what_is_no_dicom_application_is_refused() -> None:
    assert verdict(protocol_version=2) is Refusal.PROTOCOL_VERSION
    assert verdict(protocol_version=3) is None
    assert verdict(application_context="1.2.3") is Refusal.APPLICATION_CONTEXT
    assert verdict(calling="") is Refusal.CALLING_TITLE


def test_a_peer_that_takes_no_sensible_pdu_is_refused() -> None:
    assert verdict(user=UserInformation(10)) is Refusal.PDU_SIZE
    assert verdict(user=UserInformation(0)) is None
