"""What stands before every handler (security.md 1, 2)."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import ClassVar

import httpx
import pytest

from dicomweb.app import ROUTES
from pacs.errors import Unavailable

Call = type(lambda: None)


@pytest.fixture
def alive(bare_node: SimpleNamespace) -> None:
    bare_node.health = SimpleNamespace(live=lambda: {"status": "healthy"})


@pytest.mark.usefixtures("alive")
class TestWhoMayCall:
    @pytest.mark.parametrize(
        "host", ["127.0.0.1:8000", "localhost", "127.0.0.1", "[::1]:8000", "LOCALHOST:1", "127.8.9.1"]
    )
    def test_loopback_hosts_are_welcome(self, bare: Call, host: str) -> None:
        assert bare("GET", "/health", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example:8000"]
    )
    def test_foreign_hosts_are_refused_with_a_sentence(self, bare: Call, host: str) -> None:
        answer = bare("GET", "/health", headers={"Host": host})
        assert answer.status_code == 403
        assert answer.json()["error"] == "forbidden"
        assert answer.json()["message"].endswith(".")

    @pytest.mark.parametrize("host", ["a b", "x/y", "user@localhost"])
    def test_malformed_hosts_are_bad_requests(self, bare: Call, host: str) -> None:
        assert bare("GET", "/health", headers={"Host": host}).status_code == 400

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example", "file://"])
    def test_foreign_origins_are_refused(self, bare: Call, origin: str) -> None:
        assert bare("GET", "/health", headers={"Origin": origin}).status_code == 403

    @pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:8000", "http://[::1]:3000"])
    def test_loopback_origins_are_welcome_but_get_no_cors(self, bare: Call, origin: str) -> None:
        answer = bare("GET", "/health", headers={"Origin": origin})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers

    def test_a_node_opened_to_others_takes_any_host(self, bare: Call) -> None:
        opened = {"http_host": "0.0.0.0", "auth_mode": "open"}
        assert bare("GET", "/health", settings=opened, headers={"Host": "pacs.example"}).status_code == 200


@pytest.mark.usefixtures("alive")
class TestCors:
    ALLOWED: ClassVar = {"cors_origins": ("https://viewer.example",)}

    def test_configured_origin_may_read(self, bare: Call) -> None:
        answer = bare("GET", "/health", settings=self.ALLOWED, headers={"Origin": "https://viewer.example"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://viewer.example"
        assert "Origin" in answer.headers["vary"]
        assert "ETag" in answer.headers["access-control-expose-headers"]

    def test_preflight_is_answered_for_configured_origins_only(self, bare: Call) -> None:
        asked = {"Origin": "https://viewer.example", "Access-Control-Request-Method": "DELETE"}
        answer = bare("OPTIONS", "/dicom-web/studies", settings=self.ALLOWED, headers=asked)
        assert answer.status_code == 204
        assert "DELETE" in answer.headers["access-control-allow-methods"]
        assert "If-None-Match" in answer.headers["access-control-allow-headers"]
        assert int(answer.headers["access-control-max-age"]) > 0
        refused = bare("OPTIONS", "/dicom-web/studies", headers={**asked, "Origin": "https://evil.example"})
        assert refused.status_code == 403

    def test_never_a_star_with_credentials(self, bare: Call) -> None:
        answer = bare("GET", "/health", settings={"cors_origins": ("*",)}, headers={"Origin": "http://localhost:1"})
        assert answer.headers.get("access-control-allow-origin") != "*"


class TestAnswers:
    def test_every_answer_has_an_id_and_security_headers(self, bare: Call) -> None:
        answer = bare("GET", "/nothing/here")
        assert answer.status_code == 404
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["content-security-policy"]

    def test_what_a_handler_lets_slip_is_an_honest_500_without_its_words(
        self, bare: Call, bare_node: SimpleNamespace
    ) -> None:
        def broken() -> None:
            raise ValueError("Doe^John 19700101")

        bare_node.health = SimpleNamespace(live=broken)
        answer = bare("GET", "/health")
        assert answer.status_code == 500
        assert answer.json()["error"] == "internal"
        assert "Doe" not in answer.text

    def test_unavailable_is_503_with_retry_after(self, bare: Call, bare_node: SimpleNamespace) -> None:
        def away() -> None:
            raise Unavailable("The database does not answer; see /ready.", retry_after=7)

        bare_node.health = SimpleNamespace(live=away)
        answer = bare("GET", "/health")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")

    def test_requests_are_counted_by_route_never_by_path(self, bare: Call, bare_node: SimpleNamespace) -> None:
        bare("GET", "/dicom-web/studies/not-a-uid/metadata?PatientName=Doe")
        text = bare_node.metrics.render().decode()
        assert 'route="/dicom-web/studies/{study}/metadata"' in text
        assert 'status="400"' in text
        assert "not-a-uid" not in text
        assert "Doe" not in text


class TestBodies:
    def test_a_large_body_is_refused_by_its_declared_length(self, bare: Call) -> None:
        answer = bare("POST", "/api/v1/ai/studies/1.2/run", content=b"{" + b" " * (2 << 20))
        assert answer.status_code == 413
        assert answer.headers["connection"] == "close"

    def test_a_large_chunked_body_is_refused_while_it_comes(self, bare: Call) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(40):
                yield b" " * 65536

        async def stream():  # type: ignore[no-untyped-def]
            for chunk in chunks():
                yield chunk

        assert bare("POST", "/api/v1/ai/studies/1.2/run", content=stream()).status_code == 413

    def test_a_body_that_is_no_json_is_a_bad_request(self, bare: Call) -> None:
        assert bare("POST", "/api/v1/ai/studies/1.2/run", content=b"{").status_code == 400
        assert bare("POST", "/api/v1/ai/studies/1.2/run", content=b"[]").status_code == 400


@pytest.mark.usefixtures("alive")
class TestMethods:
    def test_head_is_get_without_the_body(self, bare: Call) -> None:
        head, got = bare("HEAD", "/health"), bare("GET", "/health")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]

    def test_other_methods_are_405_with_allow(self, bare: Call) -> None:
        answer = bare("PUT", "/dicom-web/studies")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
        assert answer.json()["error"] == "method-not-allowed"

    @pytest.mark.parametrize("path", ["/health/", "/health//"])
    def test_a_slash_at_the_end_changes_nothing(self, bare: Call, path: str) -> None:
        assert bare("GET", path).status_code == 200

    def test_options_tells_the_methods(self, bare: Call) -> None:
        answer: httpx.Response = bare("OPTIONS", "/dicom-web/studies")
        assert answer.status_code == 200
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
        assert answer.json()["resources"] == [{"path": "/dicom-web/studies", "methods": ["GET", "POST"]}]


def test_openapi_holds_every_route_with_words_of_its_own(bare: Call) -> None:
    found = bare("GET", "/openapi.json").json()
    assert found["openapi"].startswith("3.")
    for row in ROUTES:
        operation = found["paths"][row.path.replace(":path", "")][row.method.lower()]
        assert operation["summary"], row
        assert operation["x-permission"] == row.permission


def test_every_route_has_a_permission() -> None:
    assert all(row.permission for row in ROUTES)
    assert len({(row.method, row.path) for row in ROUTES}) == len(ROUTES)
