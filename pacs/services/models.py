"""The register of model packages and of sidecars: what may run, what may not and why, and who is there to run it."""

from collections.abc import Sequence
from datetime import datetime

from psycopg.types.json import Jsonb

from pacs.domain.models import Package
from pacs.errors import Conflict, NotFound, Unavailable
from pacs.index.named import queries
from pacs.services.books import Books, Row

SQL = queries("models")
Rows = list[Row]
SEEN_SECONDS = 60  # a package that no scan found for so long is retired; a sidecar that was silent for so long is gone
SUMMARY = ("task", "summary", "vendor", "licence", "allowed_use")
DISABLED = ("disabled", "somebody disabled it; enable it with: filmroom ai enable {name}")


class Models:
    """The register. Methods raise Unavailable when the database is away."""

    def __init__(self, books: Books) -> None:
        self.books = books

    # for people

    def list(self) -> Rows:
        """Every package known, with its state: checking, enabled, disabled, quarantined, retired."""
        with self.books.transaction() as cursor:
            return [_shown(row) for row in cursor.execute(SQL["list"]).fetchall()]

    def enable(self, name: str) -> Rows:
        """Let a model run again. Raises NotFound."""
        return self._switch(name, disabled=False)

    def disable(self, name: str) -> Rows:
        """Keep a model from running, all its versions, those to come too. Raises NotFound."""
        return self._switch(name, disabled=True)

    def require_enabled(self, name: str) -> None:
        """Raises NotFound for a model nobody knows, Conflict for one that may not run now."""
        rows = self._named(name)
        if not any(row["state"] == "enabled" for row in rows):
            row = rows[-1]
            raise Conflict(f"Model {name} is {row['state']}: {row['message'] or 'its check has not ended yet.'}")

    def _switch(self, name: str, *, disabled: bool) -> Rows:
        with self.books.transaction() as cursor:
            cursor.execute(SQL["switch"], {"name": name, "disabled": disabled})
        return self._named(name)

    def _named(self, name: str) -> Rows:
        rows = [row for row in self.list() if row["name"] == name]
        if not rows:
            raise NotFound("There is no model of that name; see: filmroom ai models")
        return rows

    # for sidecars

    def record(self, package: Package) -> None:
        """Write down what a scan or a check found."""
        values = {name: getattr(package, name) for name in Package.__dataclass_fields__}
        with self.books.transaction() as cursor:
            cursor.execute(SQL["seen"], values | {"manifest": Jsonb(dict(package.manifest))})

    def still_there(self, paths: Sequence[str]) -> None:
        """These folders are unchanged since they were recorded; those that nobody finds any more are retired."""
        with self.books.transaction() as cursor:
            cursor.execute(SQL["still_there"], {"paths": [*paths]})
            cursor.execute(SQL["retire"], {"seconds": SEEN_SECONDS})

    def present(
        self, owner: str, *, ready: bool, device: str, provider: str = "", reason: str = "", message: str = ""
    ) -> None:
        """A sidecar says that it is there, and whether it can run models."""
        values = {
            "owner": owner,
            "ready": ready,
            "device": device,
            "provider": provider,
            "reason": reason,
            "message": message,
        }
        with self.books.transaction() as cursor:
            cursor.execute(SQL["sidecar"], values)
            cursor.execute(SQL["forget_sidecars"])

    def absent(self, owner: str) -> None:
        """A sidecar says good-bye."""
        with self.books.transaction() as cursor:
            cursor.execute(SQL["sidecar_gone"], {"owner": owner})

    def sidecars(self) -> Rows:
        """Sidecars that were heard of during the last minute: owner, ready, reason, message, device, provider."""
        with self.books.transaction() as cursor:
            return cursor.execute(SQL["sidecars"], {"seconds": SEEN_SECONDS}).fetchall()

    def readiness(self) -> Rows:
        """The sidecars that say they cannot run models, for `/ready`; empty when all is well."""
        return [row for row in self.sidecars() if not row["ready"]]

    def check_ready(self) -> None:
        """A check of `/ready`. Raises Unavailable when a sidecar cannot run models: its device is not proved."""
        unready = self.readiness()
        if unready:
            raise Unavailable(f"A sidecar cannot run models: {unready[0]['message']}")


def _shown(row: Row) -> Row:
    off = row["disabled"] and row["state"] != "retired"
    reason, message = (DISABLED[0], DISABLED[1].format(name=row["name"])) if off else (row["reason"], row["message"])
    state = "disabled" if off else row["state"]
    fixed = {name: row[name] for name in ("name", "version", "digest", "path")}
    times = {name: _text(row[name]) for name in ("checked_at", "seen_at")}
    summary = {name: row["manifest"].get(name, "") for name in SUMMARY}
    return fixed | {"state": state, "reason": reason, "message": message} | summary | times


def _text(value: datetime | None) -> str | None:
    return value.isoformat() if value else None
