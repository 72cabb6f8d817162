"""Events and metrics: what is told, and what never is."""

import io
import json
import logging
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pacs import telemetry
from pacs.errors import Reason, Refused
from pacs.settings import Settings


@pytest.fixture
def log_lines():
    stream = io.StringIO()
    telemetry.configure(Settings(log_format="json"), "test", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


def test_an_event_is_one_json_line_with_time_level_and_component(log_lines):
    structlog.get_logger().info("instance_stored", sop_instance_uid="1.2.3", size=10)
    (line,) = log_lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {
        "level": "info",
        "component": "test",
        "event": "instance_stored",
        "sop_instance_uid": "1.2.3",
        "size": 10,
    }


@pytest.mark.parametrize(
    "field",
    ["patient_name", "PatientID", "patient_birth_date", "accession_number", "birth_date", "query", "password", "token"],
)
def test_fields_named_like_patient_data_are_withheld(log_lines, field):
    structlog.get_logger().warning("looked", **{field: "CANARY^NAME"})
    assert "CANARY" not in json.dumps(log_lines())


def test_objects_are_reduced_to_their_type(log_lines):
    structlog.get_logger().info("seen", dataset={"00100010": "CANARY"}, raw=b"CANARY", error=ValueError("CANARY"))
    (line,) = log_lines()
    assert (line["dataset"], line["raw"], line["error"]) == ("<dict>", "<bytes>", "<ValueError>")


def test_a_foreign_exception_tells_its_type_and_place_but_not_its_words(log_lines):
    try:
        int("CANARY")
    except ValueError:
        structlog.get_logger().exception("broke")
    (line,) = log_lines()
    assert line["exception"] == "builtins.ValueError"
    assert "test_telemetry.py" in line["where"][-1]
    assert "CANARY" not in json.dumps(line)


def test_an_exception_of_ours_tells_its_sentence(log_lines):
    structlog.get_logger().error("refused", exc_info=Refused(Reason.TOO_LARGE, "More than 1 GiB."))
    assert log_lines()[0]["reason"] == "More than 1 GiB."


def test_records_of_untrusted_libraries_are_counted_not_quoted(log_lines):
    logging.getLogger("pynetdicom.events").error("PatientName CANARY")
    logging.getLogger("somebody").error("PatientName %s", "CANARY")
    logging.getLogger("uvicorn.error").error("Invalid HTTP request received.")
    lines = log_lines()
    assert [line["logger"] for line in lines] == ["somebody", "uvicorn.error"]
    assert "CANARY" not in json.dumps(lines)
    assert lines[1]["said"] == "Invalid HTTP request received."


@given(st.text())
def test_no_text_can_forge_a_line_or_move_the_cursor(text):
    for form in ("json", "console"):
        stream = io.StringIO()
        telemetry.configure(Settings(log_format=form), "test", stream)
        structlog.get_logger().info("seen", said=text)
        written = stream.getvalue()
        assert written.endswith("\n")
        assert not telemetry.CONTROL.search(written[:-1])
    structlog.reset_defaults()


def _samples(text):
    return {
        (sample.name, sample.labels.get("component"), sample.labels.get("door")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_metrics_of_all_processes_of_a_home_are_rendered_together(tmp_path, monkeypatch):
    web, dimse = telemetry.Metrics("web"), telemetry.Metrics("dimse")
    for metrics, door, number in ((web, "stow", 2), (dimse, "dimse", 3)):
        metrics.counter("filmroom_stored", "Stored.", ["door"]).labels(door).inc(number)
        metrics.histogram("filmroom_seconds", "Time.").observe(0.2)
        metrics.share(tmp_path)
        metrics.publish()
    seen = _samples(web.render())
    assert seen["filmroom_stored_total", "web", "stow"] == 2
    assert seen["filmroom_stored_total", "dimse", "dimse"] == 3
    assert seen["filmroom_seconds_count", "dimse", None] == 1
    assert web.render().decode().count("# TYPE filmroom_stored_total") == 1
    dimse.close()
    assert ("filmroom_seconds_count", "dimse", None) not in _samples(web.render())
    web.close()


DEAD = """
import pathlib, os, signal
from pacs import telemetry
metrics = telemetry.Metrics("web")
metrics.counter("filmroom_stored", "Stored.").inc(7)
metrics.share(pathlib.Path({folder!r}))
metrics.publish()
print("shown", flush=True)
signal.pause()
"""


@contextmanager
def _another_process(folder):
    """A web process that has shown its samples."""
    line = [sys.executable, "-c", DEAD.format(folder=str(folder))]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "shown\n"
        yield process
        process.kill()


def test_the_samples_of_a_dead_process_are_dropped_and_its_place_is_taken_again(tmp_path):
    metrics = telemetry.Metrics("web")
    metrics.share(tmp_path)
    with _another_process(tmp_path) as process:
        [place] = _processes(metrics.render(), "filmroom_stored_total")
        process.kill()
        process.wait()
        assert _processes(metrics.render(), "filmroom_stored_total") == []
    with _another_process(tmp_path):
        assert _processes(metrics.render(), "filmroom_stored_total") == [place]
    metrics.close()


def test_processes_of_one_component_on_one_home_are_told_apart(tmp_path):
    several = [telemetry.Metrics("web") for _ in range(4)]
    for number, metrics in enumerate(several):
        metrics.counter("filmroom_stored", "Stored.", ["door"]).labels("stow").inc(number)
        metrics.histogram("filmroom_seconds", "Time.").observe(0.2)
        metrics.share(tmp_path)
        metrics.publish()
    for metrics in several:
        text = metrics.render()
        assert len(set(_processes(text, "filmroom_stored_total"))) == 4
        _require_whole(text)
    several[1].close()
    assert len(_processes(several[0].render(), "filmroom_stored_total")) == 3
    for metrics in several:
        metrics.close()
    assert not list(tmp_path.glob("*.json"))


@given(st.text(), st.floats())
def test_any_label_and_any_number_come_back_from_the_text(text, number):
    metrics = telemetry.Metrics("web")
    metrics.gauge("filmroom_x", "Says \\ and\nmore.", ["of"]).labels(text).set(number)
    rendered = metrics.render().decode()
    [sample] = [s for f in text_string_to_metric_families(rendered) for s in f.samples if s.name == "filmroom_x"]
    assert sample.labels["of"] == text
    assert sample.value == number or number != number


def _require_whole(text):
    """It parses, and no series is there twice."""
    series = [
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    ]
    assert series
    assert len(series) == len(set(series))


def _processes(text, name):
    return [
        sample.labels["process"]
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    ]


def test_a_metric_is_made_once():
    metrics = telemetry.Metrics("web")
    assert metrics.gauge("a", "A.") is metrics.gauge("a", "A.")
    with pytest.raises(TypeError):
        metrics.counter("a", "A.")
