"""User identity: who must show one, what a right and a wrong one get, and that nobody waits for anybody's hash."""

import dataclasses
import os
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import structlog
from pynetdicom import AE
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import Verification

from pacs.dimse import identity
from pacs.dimse.associate import Identity
from pacs.dimse.pdu import Rejection
from pacs.domain.events import Source
from pacs.domain.roles import Identity as Who
from pacs.domain.roles import Visible
from pacs.domain.roles import identity as user
from pacs.errors import Unavailable
from pacs.node import Node, build
from pacs.settings import Settings
from tests.dimse.conftest import OpenDoor
from tests.dimse.door import Door, opened
from tests.dimse.sender import LITTLE, Sender
from tests.dimse.test_find import STUDY_ROOT
from tests.dimse.test_hostile import CT, eventually, rejection

STRICT = {"STRICT": 'host = "127.0.0.1"\nrequire_identity = true', "EASY": 'host = "127.0.0.1"'}
WRONG = Rejection(1, 1, 1)
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"


class FakeAccounts:
    """Knows Ada by passcode and by token. `gate` holds answers back."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.fails: Exception | None = None
        self.asked = 0
        self.who = user("ada", ["admin"])

    def by_passcode(self, username: str, passcode: str, address: str) -> Who | None:
        self.asked += 1
        self.gate.wait(20)
        if self.fails:
            raise self.fails
        return self.who if (username, passcode, address) == ("ada", "enigma äö", "127.0.0.1") else None

    def by_token(self, token: str) -> Who | None:
        return self.who if token == "a.b.c" else None


@pytest.fixture
def accounts() -> FakeAccounts:
    return FakeAccounts()


@pytest.fixture
def strict(open_door: OpenDoor, accounts: FakeAccounts) -> Door:
    return open_door(peers=STRICT, accounts=accounts)


def passcode(name: str = "ada", secret: str = "enigma äö", answer: bool = False) -> Identity:
    return Identity(2, answer, name.encode(), secret.encode())


def token(text: str, answer: bool = False) -> Identity:
    return Identity(5, answer, text.encode(), b"")


@pytest.mark.parametrize("given", [passcode(), token("a.b.c")])
def test_the_right_identity_is_let_in(strict: Door, given: Identity) -> None:
    with Sender(strict.address, calling="STRICT", identity=given) as sender:
        assert sender.echo() == 0
        assert sender.accept.user.identity_answer is None


@pytest.mark.parametrize("given", [passcode(answer=True), token("a.b.c", answer=True)])
@pytest.mark.parametrize("calling", ["STRICT", "EASY", "STRANGER"])
def test_a_positive_answer_comes_where_it_is_asked_for(strict: Door, given: Identity, calling: str) -> None:
    with Sender(strict.address, calling=calling, identity=given) as sender:
        assert sender.accept.user.identity_answer == b""


@pytest.mark.parametrize(
    "given",
    [
        None,
        Identity(1, False, b"ada", b""),
        Identity(3, False, b"ticket", b""),
        Identity(4, False, b"<saml/>", b""),
        Identity(9, True, b"ada", b"enigma"),
        passcode(secret="wrong"),
        passcode(secret=""),
        passcode(name=""),
        passcode(name="eve"),
        Identity(2, False, b"\xff\xfe", b"\xff"),
        Identity(2, False, b"ada", b"x" * 20_000),
        token("a.b.d"),
        token(""),
    ],
)
def test_an_absent_or_wrong_identity_is_rejected(strict: Door, given: Identity | None) -> None:
    with structlog.testing.capture_logs() as events:
        assert rejection(strict, calling="STRICT", identity=given) == WRONG
    assert strict.metric("filmroom_dimse_associations_rejected_total", reason="identity") == 1
    assert "enigma" not in repr(events)
    with Sender(strict.address, calling="STRICT", identity=passcode()) as sender:
        assert sender.echo() == 0


def test_where_none_is_required_a_claim_is_not_looked_at(strict: Door, accounts: FakeAccounts) -> None:
    with Sender(strict.address, calling="EASY", identity=passcode(secret="old device")) as sender:
        assert sender.echo() == 0
    assert accounts.asked == 0


def test_a_wrong_identity_that_asks_for_an_answer_is_rejected_everywhere(strict: Door) -> None:
    assert rejection(strict, calling="EASY", identity=passcode(secret="wrong", answer=True)) == WRONG


def test_when_nobody_can_tell_the_caller_may_come_again(strict: Door, accounts: FakeAccounts) -> None:
    accounts.fails = Unavailable("The database does not answer.")
    assert rejection(strict, calling="STRICT", identity=passcode()) == Rejection(2, 3, 1)
    accounts.fails = None
    with Sender(strict.address, calling="STRICT", identity=passcode()) as sender:
        assert sender.echo() == 0


def test_an_identity_under_check_keeps_nobody_else_waiting(strict: Door, accounts: FakeAccounts) -> None:
    accounts.gate.clear()
    results: list[int] = []

    def call() -> None:
        with Sender(strict.address, calling="STRICT", identity=passcode()) as sender:
            results.append(sender.echo())

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: accounts.asked == 1)
    with Sender(strict.address) as sender:
        assert sender.echo() == 0
    assert results == []
    accounts.gate.set()
    for thread in threads:
        thread.join(20)
    assert results == [0] * 8


def test_callers_beyond_those_that_may_wait_are_told_to_come_again(
    strict: Door, accounts: FakeAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[Future[Who | None] | None] = []
    accounts.gate.clear()
    for _ in range(identity.MOST_WAITING + 1):
        waiting.append(strict.reactor.identities.submit(passcode(), "127.0.0.1"))
    assert waiting.pop() is None
    assert rejection(strict, calling="STRICT", identity=passcode()) == Rejection(2, 3, 2)
    accounts.gate.set()
    for future in waiting:
        assert future is not None
        assert future.result(20)
    with Sender(strict.address, calling="STRICT", identity=passcode()) as sender:
        assert sender.echo() == 0


def test_a_caller_that_leaves_while_it_is_checked_leaves_nothing(strict: Door, accounts: FakeAccounts) -> None:
    accounts.gate.clear()
    sender = Sender(strict.address, calling="STRICT", identity=passcode(), timeout=0.2)
    with pytest.raises(TimeoutError):
        sender.__enter__()
    sender.sock.close()
    assert eventually(lambda: not strict.reactor._connections)
    accounts.gate.set()
    with Sender(strict.address, calling="STRICT", identity=passcode()) as other:
        assert other.echo() == 0
    assert eventually(lambda: strict.metric("filmroom_dimse_associations_open") == 0)


def test_a_users_roles_say_which_services_it_has(strict: Door, accounts: FakeAccounts) -> None:
    accounts.who = user("ada", ["viewer"])
    contexts = [("1.2.840.10008.1.1", LITTLE), (CT, LITTLE), (STUDY_ROOT, LITTLE), (MOVE, LITTLE)]
    with Sender(strict.address, contexts, calling="STRICT", identity=passcode()) as sender:
        assert sorted(sender.accepted) == [1, 5, 7]
        assert sender.results[3] == 1


# the node's own accounts


@pytest.fixture(scope="module")
def node(settings: Settings) -> Iterator[Node]:
    built = build(dataclasses.replace(settings, secret_key=secrets.token_hex(32)), component="test")
    yield built
    built.close()


@pytest.fixture(scope="module")
def doors(node: Node, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    source = Source("test", "local", "127.0.0.1")
    node.accounts.create("carla", "correct horse", ["uploader"], source)
    node.accounts.create("keyhole", "correct horse", ["viewer"], source, scope={"institutions": ["One"]})
    folder: Path = tmp_path_factory.mktemp("door")
    with opened(folder, node, peers=STRICT, accounts=identity.NodeAccounts(node)) as door:
        yield door


def test_accounts_of_the_node_are_asked(doors: Door, node: Node) -> None:
    with Sender(doors.address, calling="STRICT", identity=passcode("carla", "correct horse")) as sender:
        assert sender.echo() == 0
    assert rejection(doors, calling="STRICT", identity=passcode("carla", "correct cow")) == WRONG
    assert rejection(doors, calling="STRICT", identity=passcode("nobody", "correct horse")) == WRONG


def test_who_sees_a_part_only_is_not_let_in(doors: Door) -> None:
    assert rejection(doors, calling="STRICT", identity=passcode("keyhole", "correct horse")) == WRONG


def test_tokens_of_the_node_are_asked(doors: Door, node: Node) -> None:
    grant = node.sign_in.for_program("carla", "correct horse", Source("test", "", "127.0.0.1"))
    with Sender(doors.address, calling="STRICT", identity=token(grant.access_token)) as sender:
        assert sender.echo() == 0
    forged = grant.access_token[:-6] + os.urandom(3).hex()
    assert rejection(doors, calling="STRICT", identity=token(forged)) == WRONG
    assert rejection(doors, calling="STRICT", identity=token("eyJhbGciOiJub25lIn0.e30.")) == WRONG


def test_guessing_ends_after_a_few_tries(doors: Door, node: Node) -> None:
    node.accounts.create("guessed", "correct horse", ["uploader"], Source("test", "local", "127.0.0.1"))
    for _ in range(5):
        assert rejection(doors, calling="STRICT", identity=passcode("guessed", "wrong one")) == WRONG
    assert rejection(doors, calling="STRICT", identity=passcode("guessed", "correct horse")) == WRONG


@pytest.mark.interop
def test_pynetdicom_gets_the_answer_it_asks_for(strict: Door) -> None:
    ae = AE("STRICT")
    ae.add_requested_context(Verification)
    asked = UserIdentityNegotiation()
    asked.user_identity_type, asked.positive_response_requested = 2, True
    asked.primary_field, asked.secondary_field = b"ada", "enigma äö".encode()
    association = ae.associate(*strict.address, ae_title="FILMROOM", ext_neg=[asked])
    assert association.is_established
    assert association.acceptor.user_identity is not None
    assert association.send_c_echo().Status == 0
    association.release()


def test_a_scope_in_an_identity_is_what_bars_it() -> None:
    seen = dataclasses.replace(user("ada", ["viewer"]), visible=Visible(institutions=("One",)))
    assert identity._seeing_all(lambda: seen) is None
    assert identity._seeing_all(lambda: user("ada", ["viewer"])) is not None
