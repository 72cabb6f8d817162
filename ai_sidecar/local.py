"""What the pipeline reads, taken from this node's own index and file store (the sidecar runs beside them)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ai_sidecar import facts
from ai_sidecar.ports import InstanceFacts, ResultFile, RunFailed, SeriesFacts, SourceSeries
from pacs.domain.events import Expected, Source
from pacs.domain.jobs import Lease, Result
from pacs.domain.levels import Scope
from pacs.errors import NotFound, Reason, Refused, Unavailable
from pacs.node import Node

SOP_INSTANCE = "00080018"
PASSING = (Reason.UNAVAILABLE, Reason.OUT_OF_SPACE)  # a store refused for these may succeed a little later


@dataclass(frozen=True, slots=True)
class LocalInstance:
    """A stored instance whose bytes are read when they are wanted."""

    node: Node
    row: Any  # pacs.services.retrieve.StoredInstance

    @property
    def sop_class_uid(self) -> str:
        return str(self.row.sop_class_uid)

    @property
    def sop_instance_uid(self) -> str:
        return str(self.row.sop_instance_uid)

    @property
    def transfer_syntax_uid(self) -> str:
        return str(self.row.transfer_syntax_uid)

    @property
    def data_sha256(self) -> str:
        return str(self.row.data_sha256)

    def read(self) -> bytes:
        """The whole file as stored. Raises Damaged, NotFound, Unavailable."""
        with self.node.retrieve.open(self.row) as file:
            return bytes(file.read())


class Local:
    """The node's study as facts, its series as sources, and its door for results."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def facts(self, study_uid: str) -> list[SeriesFacts]:
        """What selection wants to know of each series. Raises NotFound when the study is gone."""
        rows = {row.sop_instance_uid: row for row in self.node.retrieve.locate(Scope(study_uid))}
        series: dict[str, list[InstanceFacts]] = {}
        for row in self._metadata(study_uid):
            stored = rows.get(_value(row, SOP_INSTANCE))
            if stored is not None:  # it came between the two looks: the study is about to be planned again
                series.setdefault(stored.series_uid, []).append(_facts(row, stored))
        return [SeriesFacts(series_uid, instances) for series_uid, instances in series.items()]

    def _metadata(self, study_uid: str) -> Iterator[Mapping[str, Any]]:
        for part in self.node.retrieve.metadata(Scope(study_uid)).parts:
            yield orjson.loads(part)

    def source(self, lease: Lease) -> SourceSeries:
        """The exact inputs of a job. Raises RunFailed for good when one is gone or is not what it was."""
        series_uid = lease.series_uids[0]
        try:
            rows = {row.sop_instance_uid: row for row in self.node.retrieve.locate(Scope(lease.study_uid, series_uid))}
        except NotFound:
            rows = {}
        return SourceSeries(series_uid, [LocalInstance(self.node, _same(rows, wanted)) for wanted in lease.inputs])

    def store(self, lease: Lease, made: ResultFile) -> Result:
        """One result through the node's one door; the same bytes again are no second result.

        Raises Unavailable when that may pass, RunFailed when it will not.
        """
        source = Source("ai", f"{lease.model} {lease.version}")
        expected = Expected(made.sop_class_uid, made.sop_instance_uid, lease.study_uid)
        try:
            incoming = self.node.ingest.begin(source, expected)
            try:
                incoming.write(made.content)
            except BaseException:
                incoming.abort()
                raise
            self.node.ingest.store(incoming)
        except Refused as refused:
            raise _refusal(refused) from refused
        return Result(made.role, made.sop_class_uid, made.sop_instance_uid, made.series_uid)


def _facts(row: Mapping[str, Any], stored: Any) -> InstanceFacts:
    return facts.from_json(
        row,
        sop_class_uid=stored.sop_class_uid,
        sop_instance_uid=stored.sop_instance_uid,
        transfer_syntax_uid=stored.transfer_syntax_uid,
        data_sha256=stored.data_sha256,
    )


def _value(row: Mapping[str, Any], key: str) -> str:
    values: Sequence[Any] = row.get(key, {}).get("Value", ())
    return str(values[0]) if values else ""


def _same(rows: Mapping[str, Any], wanted: Mapping[str, Any]) -> Any:
    found = rows.get(wanted["sop_instance_uid"])
    if found is None:
        said = f"Instance {wanted['sop_instance_uid']} was deleted after the job was planned."
        raise RunFailed("input_gone", said, permanent=True)
    if found.data_sha256 != wanted["data_sha256"]:
        said = f"Instance {wanted['sop_instance_uid']} was replaced after the job was planned."
        raise RunFailed("input_changed", said, permanent=True)
    return found


def _refusal(refused: Refused) -> Unavailable | RunFailed:
    if refused.reason in PASSING:
        return Unavailable(refused.message)
    if refused.reason is Reason.DUPLICATE:
        said = "An earlier attempt stored other results under the same UIDs; delete those, then retry the job."
        return RunFailed("results_differ", said, permanent=True)
    return RunFailed("result_refused", f"The node refused a result: {refused.message}", permanent=True)
