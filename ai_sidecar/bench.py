"""Where runs happen on a machine that has the node's database and file store."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version

from ai_sidecar import package, pipeline, selection
from ai_sidecar.heartbeat import Stop
from ai_sidecar.local import Local
from ai_sidecar.ports import JobContext, Outcome, ResultFile
from ai_sidecar.runtime import Runtime
from ai_sidecar.shelf import Shelf
from ai_sidecar.spool import Spool
from pacs.domain.jobs import Decision, Lease, Result, Work
from pacs.node import Node

SOFTWARE_VERSION = "software_version"  # in a job's evidence, frozen when it is planned


class LocalBench:
    """The packages, the device, and the node as a source of images and a door for results."""

    def __init__(self, node: Node) -> None:
        threads = max(1, (os.cpu_count() or 1) // node.settings.ai_max_concurrent_jobs)
        self.settings, self.local = node.settings, Local(node)
        self.runtime = Runtime(node.settings.ai_device, threads)
        self.spool = Spool(node.settings.results_dir)
        self.spool.tidy()
        self.shelf = Shelf(node, node.settings.models_dirs, partial(package.load, runtime=self.runtime))

    def ready(self) -> bool:
        """Whether the packages are read and the device is proved."""
        return self.shelf.scanned and not self.runtime.problem

    def decide(self, work: Work) -> Sequence[Decision]:
        """What runs on a study, and why the rest does not. Raises NotFound, Damaged, Unavailable."""
        series = self.local.facts(work.study_uid)
        decided = selection.plan(self.shelf.enabled(work.model), series)
        limit = self.settings.ai_job_timeout_seconds
        # results name the software that made them: a retry after an upgrade must still write the same bytes
        made_by = {SOFTWARE_VERSION: version("filmroom")}
        frozen = [
            replace(one, timeout_s=min(one.timeout_s, limit), evidence={**one.evidence, **made_by}) for one in decided
        ]
        return [*frozen, *self.shelf.not_enabled(work.model)]

    def run(self, lease: Lease, stop: Stop) -> Outcome:
        """One job. Raises Unsuitable, RunFailed, Interrupted, and what reading the images raises."""
        self.shelf.require_enabled(lease.model)
        chosen, source = self.shelf.find(lease), self.local.source(lease)
        outcome = self.spool.find(lease.job_key)
        if outcome is None:
            outcome = pipeline.run(chosen, [source], _context(lease), self.runtime, stop)
            self.spool.keep(lease.job_key, outcome)
        return outcome

    def store(self, lease: Lease, made: ResultFile) -> Result:
        """One result, through the node's door. Raises RunFailed, Unavailable."""
        return self.local.store(lease, made)

    def done(self, lease: Lease) -> None:
        """The job needs its spooled results no more."""
        self.spool.forget(lease.job_key)


def _context(lease: Lease) -> JobContext:
    return JobContext(
        job_key=lease.job_key,
        study_uid=lease.study_uid,
        frozen_at=lease.frozen_at,
        parameters=lease.parameters,
        predecessor=lease.predecessor,
        software_version=lease.evidence[SOFTWARE_VERSION],
    )
