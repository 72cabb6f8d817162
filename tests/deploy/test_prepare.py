"""deploy/prepare makes what a checkout lacks, once, and nothing that others may read."""

import os
import shutil
import stat
import subprocess

import pytest

from pacs.settings import load
from tests.deploy import shipped

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate"),
]
SECRETS = ("database_url", "postgres_password", "secret_key")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkout")
    (root / "deploy").mkdir()
    shutil.copy(shipped.ROOT / ".env.example", root)
    shutil.copy(shipped.DEPLOY / "prepare", root / "deploy")
    return root


def prepare(root):
    return subprocess.run([root / "deploy" / "prepare"], capture_output=True, text=True, check=True, cwd="/").stdout


@pytest.fixture(scope="module")
def said(checkout):
    return prepare(checkout)


def test_it_says_what_comes_next_and_a_login_is_required(checkout, said):
    assert "make the first administrator" in said
    assert "filmroom create-admin" in (checkout / ".env").read_text()
    assert "\n# AUTH_MODE=required\n" in (checkout / ".env").read_text()


def test_the_folders_belong_to_the_one_whom_the_containers_run_as(checkout, said):
    owner = int(dict(line.split("=") for line in plain(checkout / ".env"))["FILMROOM_UID"])
    assert owner != 0
    for name in ("storage", "models", "results", "deploy/secrets/tls"):
        assert (checkout / name).stat().st_uid == owner
        assert stat.S_IMODE((checkout / name).stat().st_mode) == 0o700


def plain(file):
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


def test_secrets_are_random_hidden_by_their_folder_and_agree(checkout, said):
    folder = checkout / "deploy" / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    url, password, key = ((folder / name).read_text() for name in SECRETS)
    settings = load({"DATABASE_URL_FILE": str(folder / "database_url"), "FILMROOM_CONFIG": os.devnull})
    assert settings.database_url == url == f"postgresql://filmroom:{password}@postgres:5432/filmroom"
    assert len({password, key}) == 2
    assert min(len(password), len(key)) >= 32


def test_a_second_run_changes_nothing(checkout, said):
    before = {file: file.read_bytes() for file in checkout.rglob("*") if file.is_file()}
    prepare(checkout)
    assert {file: file.read_bytes() for file in checkout.rglob("*") if file.is_file()} == before


def test_the_certificate_is_of_the_key_and_names_this_machine(checkout, said):
    tls = checkout / "deploy" / "secrets" / "tls"
    shown = lambda *line: subprocess.run(line, capture_output=True, text=True, check=True).stdout  # noqa: E731
    of_certificate = shown("openssl", "x509", "-in", tls / "tls.crt", "-noout", "-pubkey", "-ext", "subjectAltName")
    assert shown("openssl", "pkey", "-in", tls / "tls.key", "-pubout") in of_certificate
    assert "DNS:localhost" in of_certificate
    assert stat.S_IMODE((tls / "tls.key").stat().st_mode) == 0o600
