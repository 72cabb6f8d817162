"""Results that were made and not stored yet survive their worker."""

import os

from ai_sidecar.ports import Outcome, ResultFile
from ai_sidecar.spool import KEPT_SECONDS, Spool


def outcome(content=b"bytes"):
    seg, sr = ResultFile("seg", "1.1", "1.2", "1.3", content), ResultFile("sr", "2.1", "2.2", "2.3", b"report")
    return Outcome(seg, sr, {"infer": 1.5}, ("Even grid.",), "CPUExecutionProvider")


def test_an_outcome_is_found_again_as_it_was(tmp_path):
    spool = Spool(tmp_path / "results")
    assert spool.find("k") is None
    spool.keep("k", outcome())
    found = spool.find("k")
    assert (found.seg, found.sr, found.provider) == (outcome().seg, outcome().sr, outcome().provider)
    assert (found.timings, list(found.evidence)) == ({"infer": 1.5}, ["Even grid."])
    spool.keep("k", outcome(b"newer"))
    assert spool.find("k").seg.content == b"newer"
    spool.forget("k")
    assert spool.find("k") is None


def test_an_outcome_without_a_segmentation_is_kept_too(tmp_path):
    spool = Spool(tmp_path)
    spool.keep("k", Outcome(None, outcome().sr, {}, (), "CPU"))
    assert spool.find("k").files == (outcome().sr,)


def test_a_torn_file_is_no_outcome(tmp_path):
    spool = Spool(tmp_path)
    spool.keep("k", outcome())
    (tmp_path / "k" / "seg").write_bytes(b"byt")
    assert spool.find("k") is None
    (tmp_path / "k" / "index.json").write_text("{")
    assert spool.find("k") is None


def test_a_disk_that_takes_nothing_does_no_harm(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    spool = Spool(tmp_path / "file")
    spool.keep("k", outcome())
    spool.tidy()
    assert spool.find("k") is None


def test_what_was_left_long_ago_is_forgotten(tmp_path):
    spool = Spool(tmp_path)
    for key in ("old", "new"):
        spool.keep(key, outcome())
    long_ago = (tmp_path / "old").stat().st_mtime - KEPT_SECONDS - 1
    os.utime(tmp_path / "old", (long_ago, long_ago))
    spool.tidy()
    assert (spool.find("old"), spool.find("new") is not None) == (None, True)
