"""The model packages that this sidecar can run: found in the folders, checked when they change, registered."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from ai_sidecar.package import Package, discover
from ai_sidecar.ports import RunFailed, Unsuitable
from pacs.domain.jobs import Decision, Lease
from pacs.domain.models import Package as Listed
from pacs.errors import FilmroomError
from pacs.node import Node

log = structlog.get_logger()

RUN = "filmroom ai run"
TEXTS = ("task", "summary", "vendor", "licence", "allowed_use")
Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Shelved:
    """A folder as the last scan left it; `package` is None when it did not pass."""

    fingerprint: Fingerprint
    package: Package | None


class Shelf:
    """`load` reads a folder and runs its golden test: `ai_sidecar.package.load` on this sidecar's runtime."""

    def __init__(self, node: Node, folders: Sequence[Path], load: Callable[[Path], Package]) -> None:
        self.node, self.folders, self.load = node, folders, load
        self._shelved: dict[Path, Shelved] = {}
        self.scanned = False  # until then nobody knows what there is: studies wait for their plans

    def scan(self) -> None:
        """Look at every folder; check what is new or changed. Raises Unavailable when the database is away."""
        found = {path: fingerprint(path) for path in discover(self.folders)}
        self._shelved = {path: shelved for path, shelved in self._shelved.items() if path in found}
        for path, print_ in found.items():
            known = self._shelved.get(path)
            if known is None or known.fingerprint != print_:
                self._shelved.pop(path, None)
                self._shelved = {**self._shelved, path: Shelved(print_, self._check(path))}
        self.node.models.still_there([str(path) for path in found])
        self.scanned = True

    def _check(self, path: Path) -> Package | None:
        name, version = path.parent.name, path.name
        self.node.models.record(Listed(name, version, "", "checking", str(path)))
        try:
            package = self.load(path)
        except FilmroomError as wrong:
            log.warning("ai_model_quarantined", model=name, version=version, reason=wrong.code)
            self.node.models.record(Listed(name, version, "", "quarantined", str(path), wrong.code, wrong.message))
            return None
        log.info("ai_model_enabled", model=name, version=version)
        fine = Listed(name, version, package.digest, "enabled", str(path), manifest=_texts(package))
        self.node.models.record(fine)
        return package

    def enabled(self, model: str = "") -> list[Package]:
        """The newest version of each model that may run; of one model when it is named."""
        registered = {(row["name"], row["version"]): row["state"] for row in self.node.models.list()}
        newest: dict[str, Package] = {}
        for package in sorted(self._good(), key=lambda package: precedence(package.version)):
            if registered.get((package.name, package.version)) == "enabled" and model in ("", package.name):
                newest[package.name] = package
        return list(newest.values())

    def not_enabled(self, model: str = "") -> list[Decision]:
        """Why models do not run at all, each as a decision; one for the lack of any."""
        rows = [row for row in self.node.models.list() if row["state"] != "retired" and model in ("", row["name"])]
        able = {row["name"] for row in rows if row["state"] == "enabled"}
        decisions = [_decision(row) for row in rows if row["name"] not in able]
        if rows or model:
            return decisions
        said = "There is no model package; put one into a folder of AI_MODELS_DIR."
        return [Decision("", "", "", reason="no_models", message=said)]

    def require_enabled(self, name: str) -> None:
        """Raises Unsuitable when somebody disabled the model after the job was planned."""
        off = [row for row in self.node.models.list() if row["name"] == name and row["state"] == "disabled"]
        if off:
            raise Unsuitable("model_disabled", _decision(off[0]).message)

    def find(self, lease: Lease) -> Package:
        """The package that a job was planned with, byte for byte. Raises RunFailed, for good."""
        named = [p for p in self._good() if (p.name, p.version) == (lease.model, lease.version)]
        if not named:
            said = f"Model {lease.model} {lease.version} is no longer here; for a new plan: {RUN} {lease.study_uid}"
            raise RunFailed("model_gone", said, permanent=True)
        if named[0].digest != lease.digest:
            said = f"Model {lease.model} {lease.version} was changed since; for a new plan: {RUN} {lease.study_uid}"
            raise RunFailed("model_changed", said, permanent=True)
        return named[0]

    def _good(self) -> list[Package]:
        return [shelved.package for shelved in self._shelved.values() if shelved.package is not None]


def _texts(package: Package) -> dict[str, str]:
    return {name: str(getattr(package.manifest.model, name)) for name in TEXTS}


def fingerprint(folder: Path) -> Fingerprint:
    """Names, sizes and times of all files below: a package whose files change is checked again."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            status = path.stat()
        except OSError:  # gone between the two looks
            continue
        if path.is_file():
            found.append((str(path.relative_to(folder)), status.st_size, status.st_mtime_ns))
    return tuple(found)


def precedence(version: str) -> tuple[Any, ...]:
    """The order of semantic versions (semver.org, 11): numbers as numbers, a pre-release before its release."""
    core, _, pre = version.partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in re.findall(r"\d+", core))
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split("."))
    return numbers, not pre, parts


def _decision(row: Mapping[str, Any]) -> Decision:
    said = f"Model {row['name']} is {row['state']}: {row['message'] or 'its check has not ended yet.'}"
    return Decision(row["name"], row["version"], row["digest"], reason=f"model_{row['state']}", message=said)
