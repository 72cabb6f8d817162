"""The viewer's files are served at their port only, with a policy of their own, and the package is checked."""

import base64
import dataclasses
import gzip
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from dicomweb import viewer, viewerpackage
from pacs.settings import Settings
from tests.dicomweb.wire import call

SCRIPT = "window.PUBLIC_URL='/'"
PAGE = f"<html><script>{SCRIPT}</script><script src='/app.js'></script></html>"
NAMED = "app.bundle.0123456789abcdef.js"
SOURCE = "let x = 1;\n" * 1000


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of a home with a small viewer; what this machine's user has fetched does not count."""
    monkeypatch.setattr(viewerpackage, "cache", lambda: tmp_path / "none")
    monkeypatch.setattr(viewerpackage, "shared", lambda: tmp_path / "none")
    folder = tmp_path / "viewer" / viewerpackage.NAME
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(PAGE)
    (folder / NAMED).write_text(SOURCE)
    (folder / f"{NAMED}.gz").write_bytes(gzip.compress(SOURCE.encode()))
    (folder / "0123456789abcdef.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret").write_text("secret")
    return dataclasses.replace(Settings(), filmroom_home=tmp_path, web_port=3000)


def get(settings: Settings, path: str, port: int = 3000, method: str = "GET", **headers: str) -> httpx.Response:
    """One request to the viewer's routes alone."""
    app = Starlette(routes=viewer.routes(settings))
    return call(app, method, path, base=f"http://127.0.0.1:{port}", headers=headers, follow_redirects=False)


@pytest.mark.parametrize("path", ["/", "/viewer", "/viewer?StudyInstanceUIDs=1.2", "/segmentation", "/a/b"])
def test_every_path_of_its_port_is_its_page(settings: Settings, path: str) -> None:
    answer = get(settings, path)
    assert (answer.status_code, answer.text) == (200, PAGE)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"


def test_policy_names_inline_scripts_by_hash_and_no_foreign_host(settings: Settings) -> None:
    policy = get(settings, "/").headers["content-security-policy"]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'" in policy
    rules = {words[0]: words[1:] for words in (rule.split() for rule in policy.split("; "))}
    assert "'wasm-unsafe-eval'" in rules["script-src"]
    assert "'unsafe-inline'" not in rules["script-src"]
    for words in rules.values():
        assert all(word in {"blob:", "data:"} or re.fullmatch(r"'[A-Za-z0-9+/=-]+'", word) for word in words), words


def test_files_named_by_their_content_are_kept_for_ever_and_sent_squeezed(settings: Settings) -> None:
    answer = get(settings, f"/{NAMED}", **{"accept-encoding": "gzip"})
    assert answer.text == SOURCE
    assert answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    plain = get(settings, f"/{NAMED}", **{"accept-encoding": "identity"})
    assert plain.text == SOURCE
    assert "content-encoding" not in plain.headers
    assert get(settings, "/0123456789abcdef.wasm").headers["content-type"] == "application/wasm"


@pytest.mark.parametrize(
    "path",
    [
        "/missing.js",
        "/../../secret.txt",
        "/%2e%2e/%2e%2e/secret.txt",
        "/..%2f..%2fsecret.txt",
        "/a%00.js",
        "/" + "a" * 300,
    ],
)
def test_what_is_no_file_of_it_is_not_given(settings: Settings, path: str) -> None:
    answer = get(settings, path)
    assert answer.status_code == 404 or answer.text == PAGE
    assert "secret" not in answer.text


def test_a_file_outside_its_folder_is_not_given_through_a_link(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "viewer" / viewerpackage.NAME / "out.txt").symlink_to(tmp_path / "secret")
    assert get(settings, "/out.txt").status_code == 404


def test_configuration_names_this_node_by_paths_only(settings: Settings) -> None:
    answer = get(settings, "/app-config.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    text = answer.text.removeprefix("window.config = ")
    known = json.JSONDecoder().raw_decode(text)[0]
    [source] = known["dataSources"]
    assert source["configuration"]["qidoRoot"] == source["configuration"]["wadoRoot"] == "/dicom-web"
    assert "http" not in answer.text.replace("httpErrorHandler", "")


def test_other_port_shows_the_way_to_it(settings: Settings) -> None:
    answer = get(settings, "/viewer?StudyInstanceUIDs=1.2", port=8000)
    assert (answer.status_code, answer.headers["location"]) == (
        307,
        "http://127.0.0.1:3000/viewer?StudyInstanceUIDs=1.2",
    )
    assert get(settings, "/segmentation", port=8000).status_code == 404
    proxied = dataclasses.replace(settings, public_url="https://pacs.example/")
    found = get(proxied, "/viewer?StudyInstanceUIDs=1.2", port=8000).headers["location"]
    assert found == "https://pacs.example/viewer?StudyInstanceUIDs=1.2"


def test_its_files_are_only_read(settings: Settings) -> None:
    answer = get(settings, "/index.html", method="POST")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_without_its_files_there_are_no_routes(settings: Settings, tmp_path: Path) -> None:
    assert viewer.routes(dataclasses.replace(settings, filmroom_home=tmp_path / "other")) == []


def package(path: Path, names: dict[str, bytes]) -> Path:
    """A package of npm with these files."""
    with tarfile.open(path, "w:gz") as members:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            members.addfile(info, io.BytesIO(content))
    return path


def test_another_package_than_the_pinned_one_is_not_unpacked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = package(tmp_path / "p.tgz", {"package/dist/index.html": b"<script>evil()</script>"})
    assert viewerpackage.main(["--into", str(tmp_path / "into"), "--package", str(forged)]) == 1
    assert "not the one that was pinned" in capsys.readouterr().err
    assert not (tmp_path / "into" / viewerpackage.NAME).exists()
    assert list((tmp_path / "into").iterdir()) == []


def test_only_what_is_used_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "package/dist/index.html": b"page",
        "package/dist/app.js": b"x" * 5000,
        "package/dist/app.js.map": b"map",
        "package/dist/ort/ort.wasm": b"runtime",
        "package/dist/app-config.js": b"demo server",
        "package/dist/../../evil.js": b"evil",
        "package/package.json": b"{}",
        "package/LICENSE": b"MIT",
    }
    fetched = package(tmp_path / "p.tgz", names)
    digest = base64.b64encode(hashlib.sha512(fetched.read_bytes()).digest()).decode()
    monkeypatch.setattr(viewerpackage, "INTEGRITY", f"sha512-{digest}")
    assert viewerpackage.main(["--into", str(tmp_path / "into"), "--package", str(fetched)]) == 0
    into = tmp_path / "into" / viewerpackage.NAME
    assert {path.name for path in into.rglob("*")} == {"index.html", "app.js", "app.js.gz", "LICENSE"}
    assert not (tmp_path / "evil.js").exists()
    assert gzip.decompress((into / "app.js.gz").read_bytes()) == b"x" * 5000


def test_without_npm_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert viewerpackage.main(["--into", str(tmp_path / "into")]) == 1
    said = capsys.readouterr().err
    assert "install npm" in said
    assert said.count("\n") == 1
