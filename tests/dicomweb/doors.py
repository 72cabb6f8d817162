"""Nodes that ask for a login, with passwords that cost nothing."""

import dataclasses
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST
from starlette.applications import Starlette

from dicomweb.app import API
from pacs.domain.events import Source
from pacs.node import Node, build
from pacs.services.passwords import Passwords
from pacs.settings import Settings
from tests.dicomweb.wire import call

OPERATOR = Source("cli", "operator")
PASSWORD = "correct horse 7"


@contextmanager
def closed(settings: Settings, **changes: object) -> Iterator[Node]:
    """A node with login required, and an administrator `chief`."""
    wanted = {"auth_mode": "required", "secret_key": secrets.token_urlsafe(48), **changes}
    node = build(dataclasses.replace(settings, **wanted), component="test")  # type: ignore[arg-type]
    node.__dict__["passwords"] = Passwords(PasswordHasher.from_parameters(CHEAPEST))
    try:
        if "chief" not in {row["username"] for row in node.accounts.list()}:
            node.accounts.create("chief", PASSWORD, ["admin"], OPERATOR)
        yield node
    finally:
        node.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def signed_in(app: Starlette, username: str, password: str = PASSWORD, **more: object) -> httpx.Response:
    """What name and password bring."""
    return call(app, "POST", f"{API}/auth/token", data={"username": username, "password": password}, **more)


def administrator(node: Node) -> dict[str, str]:
    """Headers of somebody who may do everything."""
    return bearer(node.keys.for_node("test", ("admin",)))
