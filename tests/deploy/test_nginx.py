"""deploy/nginx/nginx.conf in the real nginx, before three web processes."""

import dataclasses
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import time

import httpx
import psutil
import pytest

from pacs.domain.events import Source
from pacs.services.keys import NODE, Keys
from tests.deploy import names
from tests.deploy.proxied import BACKENDS, LIMIT_GB, Proxied, wait_for
from tests.dicomweb.objects import ct, multipart, part10

pytestmark = [pytest.mark.interop, pytest.mark.skipif(not shutil.which("nginx"), reason="nginx stands before the node")]
STUDIES = "/dicom-web/studies"
TEN_GIB = 10 << 30


@pytest.fixture(scope="module")
def asking(settings):
    """The settings of a node that asks who comes, as compose has it."""
    return dataclasses.replace(settings, auth_mode="required", secret_key=secrets.token_urlsafe(48))


@pytest.fixture(scope="module")
def token(asking):
    return Keys(asking).sign({"sub": "test", "use": NODE, "roles": ["admin"]}, 3600)


@pytest.fixture(scope="module")
def proxied(asking, short_folder):
    folder = short_folder / f"proxy-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o755)
    running = Proxied(folder, asking)
    with names.served({"backend": list(BACKENDS), "frontend": ["127.0.0.1"]}) as resolver:
        try:
            running.start(resolver)
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
def trusted(proxied):
    return ssl.create_default_context(cafile=proxied.folder / "tls" / "tls.crt")


@pytest.fixture(scope="module")
def client(trusted, token):
    """Somebody who may do everything."""
    with httpx.Client(verify=trusted, timeout=60, headers={"Authorization": f"Bearer {token}"}) as client:
        yield client


@pytest.fixture
def stranger(trusted):
    """Somebody whom nobody knows."""
    with httpx.Client(verify=trusted, timeout=60) as client:
        yield client


def stored(client, proxied, found):
    headers, body = multipart(part10(found))
    return client.post(proxied.url("https") + STUDIES, content=body, headers=headers)


def test_nginx_finds_no_fault_in_the_file(proxied):
    line = ["nginx", "-t", "-c", f"{proxied.folder}/nginx.conf"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def test_what_is_stored_over_tls_comes_back_as_it_was_by_any_backend(client, proxied):
    found = ct()
    answer = stored(client, proxied, found)
    assert answer.status_code == 200
    path = f"{STUDIES}/{found.StudyInstanceUID}/series/{found.SeriesInstanceUID}/instances/{found.SOPInstanceUID}"
    wanted = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    before = len(proxied.access())
    for word in ("https", "http", "pages") * 6:
        got = client.get(proxied.url(word) + path, headers=wanted)
        assert part10(found) in got.content
    wait_for(lambda: len(proxied.access()) >= before + 18, "the access log")
    asked = {line["upstream"].rpartition(":")[0] for line in proxied.access()[before:]}
    assert asked == set(BACKENDS)


def test_answers_name_the_url_that_the_client_used(client, proxied):
    found = ct()
    answer = stored(client, proxied, found)
    told = answer.json()["00081190"]["Value"][0]
    assert told == f"{proxied.url('https')}{STUDIES}/{found.StudyInstanceUID}"
    lie = {"Forwarded": "host=evil.example;proto=http", "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/x"}
    rows = client.get(f"{proxied.url('https')}{STUDIES}?StudyInstanceUID={found.StudyInstanceUID}", headers=lie).json()
    assert rows[0]["00081190"]["Value"] == [told]


def test_pages_come_from_the_frontend_and_metrics_from_nobody(client, proxied):
    assert "text/html" in client.get(f"{proxied.url('pages')}/console/").headers["content-type"]
    refused = client.get(f"{proxied.url('http')}/metrics")
    assert (refused.status_code, refused.json()["error"]) == (404, "not-found")


def test_whoever_is_not_known_is_asked_who_they_are(stranger, proxied):
    for word in ("https", "http", "pages"):
        answer = stranger.get(proxied.url(word) + STUDIES)
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    page = stranger.get(f"{proxied.url('https')}/console/", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/console/login?next=/console/")
    assert stranger.get(f"{proxied.url('https')}/health").status_code == 200


@pytest.fixture
def account(asking, node):
    """The name of a clinician whose password is the name twice."""
    name = f"c{secrets.token_hex(4)}"
    node.accounts.create(name, name * 2, ["clinician"], Source("cli", "test"))
    return name


def test_a_browser_signs_in_over_tls_and_its_cookie_never_goes_without(stranger, proxied, account):
    url = proxied.url("https")
    form = stranger.get(f"{url}/console/login")
    assert "max-age=" in form.headers["strict-transport-security"]
    proof = re.search(r'name="proof" value="(\w+)"', form.text)[1]
    fields = {"username": account, "password": account * 2, "proof": proof}
    assert (
        stranger.post(f"{url}/console/login", data=fields, headers={"Origin": "https://evil.example"}).status_code
        == 403
    )
    came = stranger.post(f"{url}/console/login", data=fields, headers={"Origin": url})
    assert came.status_code == 303, came.text
    cookie = next(line for line in came.headers.get_list("set-cookie") if line.startswith("__Host-filmroom="))
    assert {"Secure", "HttpOnly"} <= set(cookie.split("; "))
    assert account in stranger.get(f"{url}/console/").text
    told = {"Origin": "https://evil.example"}
    headers, body = multipart(part10(ct()))
    assert stranger.post(url + STUDIES, content=body, headers=headers | told).status_code == 403
    assert stranger.get(url + STUDIES).status_code in {200, 204}


@pytest.mark.parametrize("host", ["pacs.example", "127.0.0.1"])
def test_any_name_does_that_the_network_knows_us_by(client, proxied, host):
    answer = client.get(f"{proxied.url('http')}{STUDIES}?limit=1", headers={"Host": host})
    assert answer.status_code in {200, 204}


def talked(proxied, head, body=b"", wait=30.0):
    """What comes back on a plain connection that stays open, its request never being ended."""
    with socket.create_connection(("127.0.0.1", proxied.ports["http"]), wait) as peer:
        peer.sendall(head + body)
        got, deadline = b"", time.monotonic() + wait
        while b"\r\n\r\n" not in got and time.monotonic() < deadline:
            piece = peer.recv(65536)
            if not piece:
                break
            got += piece
        return got


def head(token, *lines):
    first = (f"POST {STUDIES} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}")
    return "\r\n".join((*first, *lines, "", "")).encode()


def test_a_body_passes_on_before_it_has_ended(proxied, token):
    piece = b"x" * 100_000
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
    got = talked(proxied, head(token, "Content-Type: text/plain", "Transfer-Encoding: chunked"), chunk)
    assert got.startswith(b"HTTP/1.1 415"), got  # of the node, which saw the head and a piece


def test_a_body_declared_too_long_is_refused_by_the_proxy_at_once(proxied, token):
    kind = 'Content-Type: multipart/related; type="application/dicom"; boundary=b'
    got = talked(proxied, head(token, kind, f"Content-Length: {TEN_GIB + 1}"))
    assert got.startswith(b"HTTP/1.1 413"), got
    assert b"client_max_body_size" in got


def test_the_limit_of_the_node_is_heard_through_the_proxy(client, proxied):
    headers, body = multipart(bytes(int(LIMIT_GB * 2**30) + 100_000))
    pieces = (body[at : at + 65536] for at in range(0, len(body), 65536))
    answer = client.post(proxied.url("https") + STUDIES, content=pieces, headers=headers)
    assert answer.status_code == 413
    assert f"{int(LIMIT_GB * 2**30)} bytes" in answer.json()["message"]  # the words of the node


def test_a_body_of_any_length_passes_through_flat_memory(client, proxied):
    """The small version of tests/torture/test_large_body.py."""
    found = ct(Rows=5000, Columns=5000, PixelData=secrets.token_bytes(50_000_000))
    headers, body = multipart(part10(found))
    resident = {host: psutil.Process(proxied.webs[host].pid) for host in BACKENDS}
    before = {host: process.memory_info().rss for host, process in resident.items()}
    grown = []

    def pieces():
        for at in range(0, len(body), 1 << 20):
            yield body[at : at + (1 << 20)]
            grown.append(max(process.memory_info().rss - before[host] for host, process in resident.items()))

    assert client.post(proxied.url("http") + STUDIES, content=pieces(), headers=headers).status_code == 200
    assert max(grown) < 25 << 20


def test_a_backend_that_is_killed_is_gone_round_and_without_any_we_say_so(client, proxied):
    proxied.kill(BACKENDS[1])
    study = ct().StudyInstanceUID
    sent = [ct(study=study) for _ in range(8)]
    assert [stored(client, proxied, found).status_code for found in sent] == [200] * 8
    rows = client.get(f"{proxied.url('http')}{STUDIES}/{study}/instances").json()
    assert {row["00080018"]["Value"][0] for row in rows} == {found.SOPInstanceUID for found in sent}
    for host in (BACKENDS[0], BACKENDS[2]):
        proxied.kill(host)
    answer = client.get(proxied.url("http") + STUDIES)
    assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (503, "unavailable", "5")
    for host in BACKENDS:
        proxied.serve(host)
        proxied.wait_served(host)
    assert client.get(f"{proxied.url('http')}/health").is_success


def test_the_log_of_the_proxy_holds_no_query(client, proxied):
    canary, before = secrets.token_hex(8), len(proxied.access())
    proxied.kill(BACKENDS[1])  # what goes wrong is told in more words

    def asked_the_killed_one():
        url = f"{proxied.url('http')}{STUDIES}?PatientName={canary}"
        assert client.get(url, headers={"Referer": f"http://localhost/{canary}"}).is_success
        return any("502" in line["upstream_status"] for line in proxied.access()[before:])

    wait_for(asked_the_killed_one, "a turn of the killed backend")
    assert canary not in (proxied.folder / "nginx.log").read_text()
