"""`filmroom create-admin`, `user`, `token`, `keys`: what operators type, and what then holds at the door."""

import io
import json
import os
import re
import stat
from dataclasses import replace

import pytest

from pacs.cli.main import main
from pacs.domain.events import Source
from pacs.domain.roles import Credential
from pacs.errors import Unauthorized
from pacs.node import build
from pacs.settings import Settings, load

WORD = "four Horses 4"
SOURCE = Source("test", "test")


@pytest.fixture
def typed(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Type a command on this module's home; exit code, standard output, standard error."""
    for name in ("SECRET_KEY", "SECRET_KEY_PREVIOUS", "AUTH_MODE", "ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FILMROOM_HOME", str(settings.home))
    monkeypatch.setenv("FILMROOM_CONFIG", os.devnull)
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("REDIS_URL", settings.redis_url)

    def run(line: str, given: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        code = main([word.replace("~", " ") for word in line.split()])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def door(settings: Settings, typed):
    """The door as a node on this home has it."""
    typed("keys rotate")  # there is a key now
    node = build(replace(load(), database_url=settings.database_url), component="test")
    yield node
    node.close()


def lets_in(door, username: str, password: str) -> bool:
    try:
        return bool(door.sign_in.for_browser(username, password, SOURCE))
    except Unauthorized:
        return False


def test_the_first_administrator_gets_a_password_that_is_shown_once(typed, door) -> None:
    code, out, err = typed("create-admin --username Ada --email ada@hospital.example")
    assert (code, err) == (0, "")
    password = re.search(r"shown this once: (\S+)", out)[1]
    assert lets_in(door, "ada", password)
    assert door.accounts.get("ada")["roles"] == ["admin"]
    code, out, err = typed("create-admin --username ada --email ada@hospital.example")
    assert code == 1
    assert "There is an account of that name already" in err
    assert out == ""


def test_a_password_from_standard_input_is_not_shown(typed, door) -> None:
    code, out, err = typed("create-admin --username in1 --password-stdin", f"{WORD}\n")
    assert (code, err) == (0, "")
    assert WORD not in out
    assert lets_in(door, "in1", WORD)
    code, _, err = typed("create-admin --username in2 --password-stdin", "")
    assert code == 1
    assert "standard input" in err


def test_a_password_on_the_command_line_is_taken_with_a_warning(typed, door) -> None:
    code, out, err = typed("create-admin --username in3 --password four~Horses~4")
    assert code == 0
    assert "process list" in err
    assert WORD not in out + err
    assert lets_in(door, "in3", WORD)


def test_json_is_for_programs(typed) -> None:
    code, out, _ = typed("create-admin --username in4 --json")
    assert code == 0
    assert set(json.loads(out)) == {"username", "email", "roles", "password"}
    assert "in4" in [row["username"] for row in json.loads(typed("user list --json")[1])]


def test_users_are_made_listed_disabled_and_let_in_again(typed, door) -> None:
    assert typed("create-admin --username chief --password-stdin", WORD)[0] == 0
    code, out, _ = typed("user create reader --role viewer --role uploader --ae CT_1 --password-stdin", WORD)
    assert code == 0
    assert "viewer, uploader" in out
    assert door.accounts.get("reader")["scope"] == {"institutions": [], "aes": ["CT_1"], "labels": []}
    carried = Credential("cookie", door.sign_in.for_browser("reader", WORD, SOURCE))
    assert door.credentials.who(carried).actor == "reader"
    assert typed("user disable reader")[0] == 0
    with pytest.raises(Unauthorized):
        door.credentials.who(carried)
    assert "disabled" in next(line for line in typed("user list")[1].splitlines() if line.startswith("reader"))
    assert not lets_in(door, "reader", WORD)
    assert typed("user enable reader")[0] == 0
    assert lets_in(door, "reader", WORD)
    assert typed("user passwd reader --password-stdin", "five Horses 5")[0] == 0
    assert lets_in(door, "reader", "five Horses 5")
    assert typed("user roles reader --role auditor")[0] == 0
    assert door.accounts.get("reader")["roles"] == ["auditor"]
    assert door.accounts.get("reader")["scope"] is None
    assert typed("user remove reader")[0] == 0
    assert not lets_in(door, "reader", "five Horses 5")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("user disable nobody", "no such account"),
        ("user passwd nobody --password-stdin", "no such account"),
        ("create-admin --username a~b --password-stdin", "username is"),
        ("create-admin --username x --email nowhere --password-stdin", "email is"),
        ("user create x --role admin --label l --password-stdin", "scope goes with"),
        ("token revoke none", "No token"),
        ("token create --name x --role viewer --expires soon", "--expires is"),
        ("token create --name x --role viewer --days -1", "later than now"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_1(typed, line: str, words: str) -> None:
    code, out, err = typed(line, WORD)
    assert (code, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1


def test_tokens_are_made_listed_and_revoked(typed, door) -> None:
    code, out, _ = typed("token create --name night~job --role uploader --days 3")
    assert code == 0
    token = out.splitlines()[-1]
    assert door.credentials.who(Credential("bearer", token)).actor == "token:night job"
    listed = typed("token list")[1]
    assert "night job" in listed
    assert token not in listed
    assert typed("token revoke night~job")[0] == 0
    door.credentials.forget()
    with pytest.raises(Unauthorized):
        door.credentials.who(Credential("bearer", token))
    assert "revoked" in typed("token list")[1]
    made = json.loads(typed("token create --name other --role viewer --expires 2029-01-31 --json")[1])
    assert made["expires_at"] == "2029-01-31T00:00:00+00:00"


class TestKeys:
    @pytest.fixture
    def session(self, typed, door) -> tuple[Credential, Credential]:
        """A cookie and an access token of somebody."""
        name = f"k{os.urandom(4).hex()}"
        typed(f"user create {name} --role viewer --password-stdin", WORD)
        grant = door.sign_in.for_program(name, WORD, SOURCE)
        cookie = door.sign_in.for_browser(name, WORD, SOURCE)
        return Credential("cookie", cookie), Credential("bearer", grant.access_token)

    def look_again(self, door, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a process does a few seconds later."""
        door.keys._looked = float("-inf")
        door.credentials.forget()

    def test_a_rotated_key_signs_from_then_on_and_the_old_one_is_heard(
        self, typed, door, session, monkeypatch: pytest.MonkeyPatch, settings: Settings
    ) -> None:
        before = (settings.home / "secret_key").read_text()
        assert typed("keys rotate")[0] == 0
        after = settings.home / "secret_key"
        assert after.read_text() != before
        assert stat.S_IMODE(after.stat().st_mode) == 0o600
        assert stat.S_IMODE((settings.home / "secret_key_previous").stat().st_mode) == 0o600
        self.look_again(door, monkeypatch)
        for credential in session:
            assert door.credentials.who(credential).roles == ("viewer",)
        assert typed("keys rotate")[0] == 0  # the cookie has moved to the key in between, the token has not
        self.look_again(door, monkeypatch)
        assert door.credentials.who(session[0]).roles == ("viewer",)
        with pytest.raises(Unauthorized):
            door.credentials.who(session[1])

    def test_the_old_one_is_not_heard_for_ever(
        self, typed, door, session, monkeypatch: pytest.MonkeyPatch, settings: Settings
    ) -> None:
        typed("keys rotate")
        old = (settings.home / "secret_key_previous").stat().st_mtime - 8 * 86400
        os.utime(settings.home / "secret_key_previous", (old, old))
        self.look_again(door, monkeypatch)
        for credential in session:
            with pytest.raises(Unauthorized):
                door.credentials.who(credential)

    def test_revoking_ends_all_sessions_at_once_and_no_api_token(
        self, typed, door, session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = json.loads(typed("token create --name stays --role viewer --json")[1])["token"]
        code, out, _ = typed("keys rotate --revoke")
        assert code == 0
        assert "sign in anew" in out
        self.look_again(door, monkeypatch)
        for credential in session:
            with pytest.raises(Unauthorized):
                door.credentials.who(credential)
        assert door.credentials.who(Credential("bearer", token)).actor == "token:stays"

    def test_a_key_from_outside_is_changed_outside(
        self, typed, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET_KEY", "o" * 40)
        kept = (settings.home / "secret_key").read_text()
        code, out, _ = typed("keys rotate")
        assert code == 3
        assert "SECRET_KEY_PREVIOUS" in out
        assert "o" * 40 not in out
        assert (settings.home / "secret_key").read_text() == kept
