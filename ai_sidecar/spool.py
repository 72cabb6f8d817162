"""Results between being made and being stored, in a folder of AI_RESULTS_DIR named by the job's key.

A worker that dies while it stores leaves them behind; whoever takes the job over on this machine stores those very
bytes and does not run the model again. They are forgotten when the job is done.
"""

import json
import os
import shutil
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from ai_sidecar.ports import Outcome, ResultFile

INDEX = "index.json"
KEPT_SECONDS = 7 * 86400
NAMES = ("role", "sop_class_uid", "sop_instance_uid", "series_uid")


class Spool:
    """Outcomes by job key. Losing one costs a run of the model, nothing else: errors of the disk are not raised."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, job_key: str, outcome: Outcome) -> None:
        """Write an outcome down, whole or not at all."""
        draft = self.folder / f".{job_key}.{os.getpid()}"
        try:
            draft.mkdir(parents=True, mode=0o700)
            for file in outcome.files:
                (draft / file.role).write_bytes(file.content)
            (draft / INDEX).write_text(json.dumps(_index(outcome)))
            self.forget(job_key)
            draft.rename(self.folder / job_key)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)

    def find(self, job_key: str) -> Outcome | None:
        """The outcome of an earlier attempt, if it is here and its bytes are what was written."""
        try:
            index = json.loads((self.folder / job_key / INDEX).read_text())
            files = {row["role"]: self._file(job_key, row) for row in index["files"]}
        except (OSError, ValueError, KeyError):
            return None
        if None in files.values():
            return None
        told = {"timings": index["timings"], "evidence": index["evidence"], "provider": index["provider"]}
        return Outcome(files.get("seg"), files.get("sr"), **told)

    def _file(self, job_key: str, row: dict[str, Any]) -> ResultFile | None:
        content = (self.folder / job_key / row["role"]).read_bytes()
        whole = sha256(content).hexdigest() == row["sha256"]
        return ResultFile(**{name: row[name] for name in NAMES}, content=content) if whole else None

    def forget(self, job_key: str) -> None:
        """The job is done."""
        shutil.rmtree(self.folder / job_key, ignore_errors=True)

    def tidy(self) -> None:
        """Forget what was left behind long ago: jobs that ended on another machine."""
        oldest = time.time() - KEPT_SECONDS
        try:
            for path in self.folder.iterdir():
                if path.is_dir() and path.stat().st_mtime < oldest:
                    shutil.rmtree(path, ignore_errors=True)
        except OSError:
            return


def _index(outcome: Outcome) -> dict[str, Any]:
    files = [
        {name: getattr(file, name) for name in NAMES} | {"sha256": sha256(file.content).hexdigest()}
        for file in outcome.files
    ]
    told = {"timings": dict(outcome.timings), "evidence": list(outcome.evidence), "provider": outcome.provider}
    return {"files": files, **told}
