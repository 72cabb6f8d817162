"""The association PDUs against themselves and, as a second truth, against pynetdicom's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from pacs.dimse import associate
from pacs.dimse.associate import (
    AssociateAccept,
    AssociateRequest,
    ContextResult,
    Identity,
    ProposedContext,
    Role,
    UserInformation,
)
from pacs.dimse.pdu import HEADER, ProtocolError

uids = st.lists(st.integers(0, 2**40), min_size=2, max_size=4).map(lambda parts: ".".join(map(str, parts)))
titles = st.text("ABC019_ x", min_size=1, max_size=16).map(str.strip)
users = st.builds(
    UserInformation,
    max_pdu=st.integers(0, 2**32 - 1),
    implementation_class_uid=uids,
    implementation_version=titles,
    window=st.none() | st.tuples(st.integers(0, 65_535), st.integers(0, 65_535)),
    roles=st.lists(st.builds(Role, uids, st.booleans(), st.booleans()), max_size=2).map(tuple),
    extended=st.lists(st.tuples(uids, st.binary(max_size=6)), max_size=3).map(tuple),
    identity=st.none()
    | st.builds(Identity, st.integers(1, 5), st.booleans(), st.binary(max_size=20), st.binary(max_size=20)),
)
odd = st.integers(0, 127).map(lambda number: 2 * number + 1)
proposed = st.lists(
    st.builds(ProposedContext, odd, uids, st.lists(uids, min_size=1, max_size=5).map(tuple)),
    max_size=4,
    unique_by=lambda context: context.context_id,
).map(tuple)
results = st.lists(
    st.builds(ContextResult, odd, st.integers(0, 4), uids), max_size=4, unique_by=lambda result: result.context_id
).map(tuple)


@settings(max_examples=40)
@given(st.builds(AssociateRequest, titles, titles, proposed, users))
def test_a_request_comes_back_as_it_was(request: AssociateRequest) -> None:
    assert associate.decode_request(associate.encode_request(request)[HEADER.size :]) == request


@settings(max_examples=40)
@given(st.builds(AssociateAccept, titles, titles, results, users))
def test_an_acceptance_comes_back_as_it_was(accept: AssociateAccept) -> None:
    assert associate.decode_accept(associate.encode_accept(accept)[HEADER.size :]) == accept


def test_the_full_128_contexts_fit() -> None:
    contexts = tuple(ProposedContext(2 * n + 1, f"1.2.{n}", ("1.2.840.10008.1.2",)) for n in range(128))
    request = AssociateRequest("A", "B", contexts, UserInformation())
    assert associate.decode_request(associate.encode_request(request)[HEADER.size :]).contexts == contexts


def test_pynetdicom_reads_our_request() -> None:
    user = UserInformation(
        16_384, "1.2.3", "VERSION", (3, 2), (Role("1.2.4", True, False),), (), Identity(2, True, b"user", b"word")
    )
    request = AssociateRequest(
        "CALLED", "CALLING", (ProposedContext(5, "1.2.840.10008.1.1", ("1.2.5", "1.2.6")),), user
    )
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(associate.encode_request(request))
    primitive = theirs.to_primitive()
    (context,) = primitive.presentation_context_definition_list
    assert (primitive.called_ae_title, primitive.calling_ae_title) == ("CALLED", "CALLING")
    assert (context.context_id, context.abstract_syntax) == (5, "1.2.840.10008.1.1")
    assert context.transfer_syntax == ["1.2.5", "1.2.6"]
    assert theirs.encode() == associate.encode_request(request)


def test_pynetdicom_reads_our_acceptance() -> None:
    accept = AssociateAccept("A", "B", (ContextResult(1, 0, "1.2.5"), ContextResult(3, 4, "1.2")), UserInformation(9))
    theirs = A_ASSOCIATE_AC()
    theirs.decode(associate.encode_accept(accept))
    found = [(item.presentation_context_id, item.result_reason) for item in theirs.presentation_context]
    assert found == [(1, 0), (3, 4)]


def valid() -> bytes:
    contexts = (ProposedContext(1, "1.2.3", ("1.2.4",)),)
    user = UserInformation(1, "1.2", roles=(Role("1.2.4", True, False),), identity=Identity(1, False, b"u", b""))
    return associate.encode_request(AssociateRequest("A", "B", contexts, user))[HEADER.size :]


@pytest.mark.parametrize("kept", range(len(valid())))
def test_a_request_cut_anywhere_is_an_error_or_a_shorter_request(kept: int) -> None:
    try:
        associate.decode_request(valid()[:kept])
    except ProtocolError:
        return
    assert kept >= associate.FIXED_SIZE


@pytest.mark.parametrize("number", [0, 2, 254])
def test_an_even_context_id_is_refused(number: int) -> None:
    request = AssociateRequest("A", "B", (ProposedContext(number, "1.2", ("1.2",)),), UserInformation())
    with pytest.raises(ProtocolError):
        associate.decode_request(associate.encode_request(request)[HEADER.size :])


def test_a_context_id_used_twice_is_refused() -> None:
    contexts = (ProposedContext(1, "1.2", ("1.2",)), ProposedContext(1, "1.3", ("1.2",)))
    with pytest.raises(ProtocolError):
        associate.decode_request(
            associate.encode_request(AssociateRequest("A", "B", contexts, UserInformation()))[HEADER.size :]
        )


def test_passcodes_are_not_shown() -> None:
    assert "word" not in repr(Identity(2, False, b"user", b"word"))
