"""A model package as the node's register knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Package:
    """What a sidecar's scan found; `state` is checking, enabled or quarantined."""

    name: str
    version: str
    digest: str
    state: str
    path: str
    reason: str = ""
    message: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)  # the texts of its [model] table
