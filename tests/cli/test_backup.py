"""`backup`, `restore` and `verify` as they are typed: exit codes, words, JSON, who is in the audit trail."""

import dataclasses
import json
import os
import shutil
import uuid

import pytest

from pacs.cli.main import main
from pacs.node import build
from tests.services.specimens import ct, part10, put, query


@pytest.fixture
def typed(settings, monkeypatch, capsys):
    """Type a command for the node of this module, or for another home and database."""

    def run(*words, **elsewhere):
        env = {"FILMROOM_HOME": settings.home, "DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
        for name, value in {**env, "FILMROOM_CONFIG": os.devnull, **elsewhere}.items():
            monkeypatch.setenv(name, str(value))
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def folder(short_folder):
    made = short_folder / uuid.uuid4().hex[:8]
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_saved_checked_wiped_and_restored(node, settings, typed, folder, short_folder, empty_database_url):
    count = sum(put(node, part10(ct())).outcome == "stored" for _ in range(3))
    code, said, bars = typed("backup", folder)
    assert (code, f"{count} instances in {folder}: {count} objects copied" in said) == (0, True)
    assert f"backup: {count}/{count}" in bars
    assert all(file.stat().st_mode & 0o077 == 0 for file in folder.rglob("*"))
    assert typed("verify", "--backup", folder)[1].endswith("all digests are equal.\n")
    home = short_folder / uuid.uuid4().hex[:8]
    home.mkdir(mode=0o711)
    there = {"FILMROOM_HOME": home, "DATABASE_URL": empty_database_url}
    code, said, _ = typed("restore", folder, "--json", **there)
    found = json.loads(said)
    assert (code, found["verified"]["whole"], found["restored"]["objects"]) == (0, True, count)
    code, _, said = typed("restore", folder, **there)
    assert (code, said.startswith("filmroom: This system is not empty: ")) == (1, True)
    other = build(dataclasses.replace(settings, filmroom_home=home, database_url=empty_database_url), component="test")
    assert query(other, "SELECT key FROM node_state WHERE key IN ('store', 'backup')") == []
    assert query(other, "SELECT action FROM audit WHERE door = 'cli' AND action <> 'backup'") == [("restore",)]
    other.close()
    assert query(node, "SELECT detail ->> 'folder' FROM audit WHERE action = 'backup'") == [(str(folder),)]
    shutil.rmtree(home)


def test_what_is_lost_is_named_and_put_back(node, settings, typed, folder):
    stored = put(node, part10(ct()))
    assert typed("backup", folder, "--json")[0] == 0
    [(name,)] = query(node, "SELECT object_name FROM instance WHERE sop_instance_uid = %s", stored.sop_instance_uid)
    path = settings.storage_dir / "objects" / name
    path.unlink()
    stray = path.with_name("stray")
    stray.write_bytes(b"stray")
    code, said, _ = typed("verify")
    assert (code, "1 missing, 1 orphans, digests equal" in said) == (1, True)
    assert f"missing: objects/{name} of instance {stored.sop_instance_uid}" in said
    assert "filmroom restore DIR --damaged" in said
    assert "orphans: objects/" in said
    code, said, _ = typed("restore", folder, "--damaged")
    assert (code, said) == (0, "1 objects put back.\n")
    stray.unlink()
    assert typed("verify", "--sample", "2")[0] == 0
    path.write_bytes(bytes(path.stat().st_size))
    code, said, _ = typed("verify", "--json")
    found = json.loads(said)
    assert (code, found["changed"], found["faults"]["changed"][0]["path"]) == (1, 1, f"objects/{name}")
    code, said, _ = typed("restore", folder, "--damaged", "--json")
    assert (code, json.loads(said)) == (0, {"mended": 1, "absent": []})


@pytest.mark.parametrize("words", [("verify", "--sample", "0"), ("backup",), ("restore",)])
def test_a_wrong_line_is_2(typed, words):
    with pytest.raises(SystemExit) as ended:
        typed(*words)
    assert ended.value.code == 2


def test_what_is_no_backup_is_one_sentence(typed, short_folder):
    for words in (("restore", short_folder), ("verify", "--backup", short_folder)):
        code, _, said = typed(*words)
        assert (code, said) == (1, f"filmroom: {short_folder} is no backup: there is no SHA256SUMS in it.\n")
