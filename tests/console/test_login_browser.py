"""Signing in, changing the password and going out, in a real browser; and a page of others that tries to post."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dicomweb.app import build
from pacs.node import Node
from pacs.settings import Settings
from tests.dicomweb import doors
from tests.dicomweb.doors import OPERATOR, PASSWORD
from tests.dicomweb.wire import serving
from tests.viewer.browser import CHROMIUM, Visit, browser

pytestmark = [pytest.mark.interop, pytest.mark.skipif(CHROMIUM is None, reason="chromium shows the pages")]
NEW = "another horse 8"


@pytest.fixture(scope="module")
def closed(settings: Settings) -> Iterator[Node]:
    with doors.closed(settings) as node:
        node.accounts.create("ada", PASSWORD, ["clinician", "uploader"], OPERATOR)
        yield node


@pytest.fixture(scope="module")
def origin(closed: Node) -> Iterator[str]:
    with serving(build(closed), closed.settings) as (port, _):
        yield f"http://127.0.0.1:{port}"


def test_somebody_signs_in_changes_the_password_and_goes(closed: Node, origin: str, tmp_path: Path) -> None:
    with browser() as chromium:
        page = chromium.new_page()
        visit = Visit(page, origin, tmp_path, is_known=True).watch()
        page.goto(f"{origin}/console/?q=doe")
        assert page.url.startswith(f"{origin}/console/login")
        page.wait_for_selector("input[name=username]:focus")  # no mouse is needed
        page.keyboard.insert_text("ada")
        page.keyboard.press("Tab")
        page.keyboard.insert_text(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{origin}/console/?q=doe")
        assert page.evaluate("document.cookie") == ""  # no script can read what lets us in
        page.get_by_role("link", name="ada").click()
        for label, text in (("Password now", PASSWORD), ("New password", NEW), ("Once more", NEW)):
            page.get_by_label(label).fill(text)
        page.get_by_role("button", name="Change it").click()
        page.get_by_text("The password is changed").wait_for()
        visit.keep("password")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{origin}/console/login")
        page.goto(f"{origin}/console/")
        assert page.url.startswith(f"{origin}/console/login")
        assert visit.was_clean()
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("alert").get_by_text("is wrong").wait_for()
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill(NEW)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{origin}/console/")


HOSTILE = """<!doctype html><form id=f method=post enctype="text/plain" action="{origin}/dicom-web/studies">
<input name=x value=y></form><script>
fetch("{origin}/dicom-web/studies", {{method: "POST", body: "x", credentials: "include", mode: "no-cors"}})
  .catch(() => 0).then(() => fetch("{origin}/api/v1/auth/me", {{credentials: "include"}}))
  .then(a => a.text()).then(t => document.title = "read " + t, () => document.title = "kept out");
</script>"""


@pytest.fixture
def stranger(origin: str) -> Iterator[str]:
    """A page of another site."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(HOSTILE.format(origin=origin).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://localhost:{server.server_port}"  # another site than 127.0.0.1
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_page_of_others_neither_reads_nor_changes_anything(
    closed: Node, origin: str, stranger: str, tmp_path: Path
) -> None:
    closed.accounts.create("eve", PASSWORD, ["admin"], OPERATOR)
    with browser() as chromium:
        page = chromium.new_page()
        page.goto(f"{origin}/console/login")
        page.get_by_label("Name").fill("eve")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{origin}/console/")
        answers: list[tuple[str, int]] = []
        page.on("response", lambda answer: answers.append((answer.request.method, answer.status)))
        page.goto(stranger)
        page.wait_for_selector("title:not(:empty)", state="attached")
        assert page.title() == "kept out"
        with page.expect_navigation():
            page.evaluate("document.getElementById('f').submit()")
        assert "unauthorized" in page.content() or "forbidden" in page.content()
        posted = [status for method, status in answers if method == "POST"]
        assert posted
        assert set(posted) <= {401, 403}
