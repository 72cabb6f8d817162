"""What the door counts and logs. Titles, addresses, statuses and reasons; never a value of an identifier."""

from enum import IntEnum
from pathlib import Path

import structlog
from prometheus_client import Counter, Histogram

from pacs.dimse.associate import AssociateAccept, AssociateRequest
from pacs.dimse.command import Field
from pacs.dimse.status import Status
from pacs.services.tls import expires_at
from pacs.telemetry import Metrics

_GOOD = frozenset({Status.SUCCESS, Status.CANCEL})
_UNASSOCIATED = frozenset({"silent", "crowded-out"})
_NOT_FOR_THIS_PEER = 1  # PS3.8 table 9-18: user rejection
_SHOWN = 10  # classes in one line


def _word(member: IntEnum) -> str:
    return member.name.lower().replace("_", "-")


def _service(field: int) -> str:
    return _word(Field(field)).removesuffix("-rq")


class Meters:
    """Counters, and one log line for each refusal. For the reactor's thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._open = metrics.gauge("filmroom_dimse_associations_open", "Associations open now")
        self._accepted = metrics.counter("filmroom_dimse_associations_accepted", "Associations accepted")
        self._rejected = metrics.counter("filmroom_dimse_associations_rejected", "Associations rejected", ["reason"])
        self._aborted = metrics.counter("filmroom_dimse_associations_aborted", "Connections cut or lost", ["reason"])
        self._operations = metrics.counter(
            "filmroom_dimse_operations", "DIMSE operations answered", ["service", "outcome"]
        )
        self._seconds = metrics.histogram(
            "filmroom_dimse_operation_seconds", "From a whole command set to its final answer", ["service"]
        )
        self._contexts = metrics.counter(
            "filmroom_dimse_contexts_refused",
            "Presentation contexts that the caller's entry does not allow",
            ["reason"],
        )
        self._expiry = metrics.gauge(
            "filmroom_dimse_tls_certificate_expiry_timestamp_seconds", "When our certificate for DIMSE ends (Unix time)"
        )
        self._kept: dict[tuple[int, Status, str], tuple[Counter, Histogram]] = {}
        self._log = structlog.get_logger()

    def accepted(self, open_now: int) -> None:
        """An association begins."""
        self._accepted.inc()
        self._open.set(open_now)

    def ended(self, why: str, open_now: int) -> None:
        """An association is over."""
        self._open.set(open_now)
        self._log.debug("association_ended", reason=why)

    def rejected(self, why: str, address: str, calling: str) -> None:
        """An association was rejected."""
        self._rejected.labels(why).inc()
        self._log.warning("association_rejected", reason=why, address=address, calling=calling)

    def identified(self, calling: str, user: str) -> None:
        """The caller showed to be a user of ours."""
        self._log.info("association_identified", calling=calling, user=user)

    def negotiated(self, request: AssociateRequest, accept: AssociateAccept) -> None:
        """Contexts that this caller may not have (USER_REJECTION), one line for all of them."""
        asked = {context.context_id: context.abstract_syntax for context in request.contexts}
        refused = [asked[one.context_id] for one in accept.results if one.result == _NOT_FOR_THIS_PEER]
        if refused:
            self._contexts.labels("not-allowed").inc(len(refused))
            self._log.warning("contexts_refused", calling=request.calling, sop_classes=sorted(set(refused))[:_SHOWN])

    def aborted(self, why: str, address: str, calling: str, detail: str = "") -> None:
        """A connection was cut, by us or by them."""
        self._aborted.labels(why).inc()
        level = self._log.info if why in _UNASSOCIATED else self._log.warning
        level("connection_cut", reason=why, address=address, calling=calling, detail=detail)

    def served(self, field: int, final: Status, outcome: str, seconds: float, calling: str) -> None:
        """An operation got its final answer; `outcome` is a word where the status does not say enough."""
        counter, histogram = self._counted(field, final, outcome)
        counter.inc()
        histogram.observe(seconds)
        if final not in _GOOD:
            self._log.warning(
                "operation_refused",
                service=_service(field),
                status=f"{final:#06x}",
                reason=outcome or _word(final),
                calling=calling,
            )

    def _counted(self, field: int, final: Status, outcome: str) -> tuple[Counter, Histogram]:
        """The children of these labels, kept: finding them costs more than counting."""
        key = field, final, outcome
        if key not in self._kept:
            counter = self._operations.labels(_service(field), outcome or _word(final))
            self._kept[key] = counter, self._seconds.labels(_service(field))
        return self._kept[key]

    def failed(self, error: BaseException) -> None:
        """Something of ours broke: kind and place of the error, not its words."""
        self._log.error("dimse_failure", exc_info=error)

    def tls_files_taken(self, certificate: Path) -> None:
        """New TLS files are in use, from the next connection on."""
        ends = expires_at(certificate)
        self._expiry.set(ends.timestamp())
        self._log.info("tls_files_taken", certificate_ends=ends.isoformat())

    def tls_files_refused(self, message: str) -> None:
        """The TLS files changed for the worse; those in use before stay in use."""
        self._log.error("tls_files_refused", reason=message)

    def peers_unreadable(self, message: str) -> None:
        """The peers file changed for the worse; the peers known before stay in force."""
        self._log.error("peers_file_refused", reason=message)
