"""What /openapi.json says, tried out by schemathesis: whatever comes in, nothing here fails with a 5xx."""

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from pacs.domain.events import Source

EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "1"))
LONG = int(os.environ.get("OPENAPI_EXAMPLES", "60"))
NOT_CALLED = r"/auth/|/maintenance|/ai/events|/peers/"  # these wait, or change the node for the others
WHO = ["local", "viewer", "unknown"]


@pytest.fixture(scope="module")
def document(port: int) -> Any:
    """The document of a real node, on which each operation can be called."""
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


@pytest.fixture(scope="module")
def tokens(node: Any) -> dict[str, dict[str, str]]:
    """Headers of the local user, of a program that may only read, and of one that nobody knows."""
    made = node.tokens.create("schemathesis", ["viewer"], Source("api", "test", "127.0.0.1"))
    return {
        "local": {},
        "viewer": {"Authorization": f"Bearer {made.token}"},
        "unknown": {"Authorization": "Bearer nobody"},
    }


def tried(document: Any, examples: int, headers: dict[str, str]) -> int:
    """Call every operation with so many inventions; how many operations there are."""
    operations = [found.ok() for found in document.exclude(path_regex=NOT_CALLED).get_all_operations()]
    for operation in operations:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            answer = case.call(headers=headers)
            assert answer.status_code < 500, (case.method, case.path, answer.status_code, answer.text)

        check()
    return len(operations)


@pytest.mark.parametrize("who", WHO)
def test_c12_no_operation_fails(document: Any, tokens: dict[str, dict[str, str]], who: str) -> None:
    assert tried(document, EXAMPLES, tokens[who]) > 60


@pytest.mark.slow
@pytest.mark.parametrize("who", WHO)
def test_c12_no_operation_fails_for_long(document: Any, tokens: dict[str, dict[str, str]], who: str) -> None:
    assert tried(document, LONG, tokens[who]) > 60


def test_c14_every_operation_says_what_it_takes_and_gives(document: Any) -> None:
    for path, operations in document.raw_schema["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["responses"]["default"]
            if method in {"post", "put", "patch"} and not path.endswith("/logout"):
                assert "requestBody" in operation, (method, path)
