"""The command `filmroom`: verbs, exit codes, one sentence for what is wrong."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from pacs.cli import main as command
from pacs.cli.main import VERBS, main
from pacs.errors import NotFound


def test_every_verb_that_is_built_offers_its_two_functions():
    import importlib

    for verb in VERBS:
        if find_spec(verb.module):
            module = importlib.import_module(verb.module)
            assert callable(module.add_arguments)
            assert callable(module.run)


def test_the_list_of_verbs_is_printed_without_importing_any():
    code = "import sys; from pacs.cli.main import main; main(['--help'])"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    assert all(verb.name in done.stdout for verb in VERBS)
    for heavy in ("psycopg", "pydicom", "numpy", "structlog", "sqlalchemy"):
        assert f" {heavy}\n" not in done.stderr


@pytest.mark.parametrize(("line", "code"), [(["--help"], 0), (["--version"], 0), (["nonsense"], 2), (["db", "x"], 2)])
def test_exit_codes_of_the_command_line(line, code, capsys):
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == code


def test_a_verb_that_is_not_built_says_so(monkeypatch, capsys):
    monkeypatch.setattr(command, "VERBS", (command.Verb("later", "later", "pacs.cli.nothing_here"),))
    assert main(["later"]) == 1
    assert capsys.readouterr().err == "filmroom: 'later' is not built yet.\n"


def test_an_error_of_ours_is_one_sentence_and_exit_code_1(monkeypatch, capsys):
    def missing(_arguments):
        raise NotFound("There is no such study.")

    monkeypatch.setattr(command, "_run", missing)
    assert main(["status"]) == 1
    assert capsys.readouterr() == ("", "filmroom: There is no such study.\n")


def test_db_shows_and_moves_the_schema(empty_database_url, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    monkeypatch.setenv("REDIS_URL", "redis://unused")
    assert main(["db", "current"]) == 0
    assert capsys.readouterr().out.startswith("no schema, head is ")
    assert main(["db", "upgrade"]) == 0
    assert capsys.readouterr().out.endswith("(head)\n")
    assert main(["db", "downgrade"]) == 0
    assert main(["db", "upgrade", "--json"]) == 0
    state = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert state["current"] == state["head"]
    assert main(["db", "history"]) == 0
    assert f"{state['head']} (current)" in capsys.readouterr().out


def test_config_masks_secrets(monkeypatch, capsys):
    monkeypatch.setenv("SECRET_KEY", "CANARY" * 8)
    assert main(["config"]) == 0
    assert main(["config", "show", "--json"]) == 0
    assert "CANARY" not in capsys.readouterr().out
