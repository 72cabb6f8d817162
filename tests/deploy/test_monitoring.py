"""Rules and dashboard ask for metrics and labels that the node writes, and compare with the limits that are set."""

import ast
import json
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from pacs.dimse.command import Field
from pacs.telemetry import Metrics
from tests.deploy import shipped
from tests.deploy.proxied import wait_for

METRIC = re.compile(r"\b((?:filmroom|process)_[a-z_]+|up)\b(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\b(by|without) \(([^)]*)\)")
SUFFIXES = ("_total", "_bucket", "_count", "_sum", "")
BEYOND = {"instance", "job", "component", "process", "le"}  # of Prometheus, of every sample, of histograms


def rules():
    (group,) = shipped.read("prometheus/alerts.yml")["groups"]
    return group["rules"]


def dashboard():
    return json.loads((shipped.DEPLOY / "grafana" / "filmroom.json").read_text())


def expressions():
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [rule["expr"] for rule in rules()] + panels


@pytest.fixture(scope="module")
def made():
    """Metric -> its labels, as the calls in the code make them, and those of each process."""
    found = {family.name: set() for family in families(Metrics("web").render().decode())} | {"up": set()}
    for folder in ("pacs", "dicomweb", "ai_sidecar"):
        for file in (shipped.ROOT / folder).rglob("*.py"):
            found |= dict(makings(file))
    return found


def makings(file: Path):
    """Calls, and rows of tables, that hold a metric's name, and after it its labels if it has any."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            words = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Tuple):
            words = node.elts
        else:
            continue
        names = [word.value for word in words if isinstance(word, ast.Constant) and is_metric(word.value)]
        if names:
            labels = next((ast.literal_eval(word) for word in words if isinstance(word, ast.Tuple | ast.List)), ())
            yield names[0], set(labels)


def is_metric(word: object):
    return isinstance(word, str) and re.fullmatch(r"filmroom_[a-z_]+", word) is not None


def test_every_metric_asked_for_is_one_that_the_code_makes_with_these_labels(made):
    for expression in expressions():
        labels = set(BEYOND)
        asked = METRIC.findall(re.sub(r'"[^"]*"', '""', GROUPING.sub("", expression)))
        assert asked, expression
        for name, matchers in asked:
            base = next((name.removesuffix(end) for end in SUFFIXES if name.removesuffix(end) in made), None)
            base = name if name in made else base
            assert base, f"nothing makes {name}"
            labels |= made[base]
            assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers)) <= made[base] | BEYOND, expression
        for _, group in GROUPING.findall(expression):
            assert set(re.split(r"\s*,\s*", group)) <= labels, expression


def test_a_living_node_tells_every_metric_that_is_asked_for(running_node):
    asked = {name for expression in expressions() for name, _ in METRIC.findall(GROUPING.sub("", expression))} - {"up"}
    asked |= named_in_runbook()
    missing: set[str] = set()

    def all_told() -> bool:
        text = httpx.get(f"{running_node.http_url}/metrics").text
        told = {family.name for family in families(text)}
        missing.clear()
        missing.update(name for name in asked if not {name.removesuffix(end) for end in SUFFIXES} & told)
        return not missing

    wait_for(all_told, missing)  # each process tells its own every few seconds


def named_in_runbook():
    """The metrics that docs/runbook.md tells its readers of."""
    text = (shipped.ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    return set(re.findall(r"`((?:filmroom|process)_[a-z_]+)(?:\{[^`]*)?`", text))


def test_what_is_told_parses_without_a_series_twice_and_quickly(running_node):
    text = httpx.get(f"{running_node.http_url}/metrics").text
    series = [(s.name, tuple(sorted(s.labels.items()))) for family in families(text) for s in family.samples]
    assert len(series) == len(set(series)) > 100
    assert all({"component", "process"} <= dict(labels).keys() for _, labels in series)


def test_expressions_are_whole():
    for expression in expressions():
        bare = re.sub(r'"[^"]*"', "", expression)
        for opening, closing in ("()", "[]", "{}"):
            assert bare.count(opening) == bare.count(closing), expression
        assert expression.count('"') % 2 == 0


def test_alerts_have_the_numbers_of_the_runbook():
    found = {rule["alert"]: rule["expr"] for rule in rules()}
    numbers = {"HttpSlow": 0.5, "DimseSlow": 0.5, "HttpErrors": 0.01, "DimseErrors": 0.01, "Cpu": 0.8, "Memory": 0.8}
    numbers |= {"DatabaseConnections": 0.8, "RedisMemory": 0.8, "QueueOld": 300, "Certificate": 14, "Disk": 0.1}
    assert {"FilmroomAiDead", "FilmroomServerAway", "FilmroomAuditLost"} <= found.keys()
    for name, number in numbers.items():
        assert re.search(rf" [<>] {number:g}$", found[f"Filmroom{name}"])
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]


def test_memory_is_compared_with_the_limits_of_compose_and_systemd():
    expression = next(rule["expr"] for rule in rules() if rule["alert"] == "FilmroomMemory")
    components = {"web": ("backend", "frontend"), "dimse": ("dimse",), "clerk": ("clerk",), "ai": ("ai",)}
    file = shipped.compose()
    for words, size in re.findall(r'component=~"([^"]+)"\} / (\d+)', expression):
        for component in words.split("|"):
            limits = [
                file["services"][name]["deploy"]["resources"]["limits"]["memory"] for name in components[component]
            ]
            unit = (shipped.DEPLOY / "systemd" / f"filmroom-{component}.service").read_text()
            assert set(limits) == {f"{int(size) >> 30}g"}
            assert f"MemoryMax={int(size) >> 30}G" in unit
            components.pop(component)
    assert not components


def test_services_named_are_those_that_the_door_counts():
    words = {field.name.lower().replace("_", "-").removesuffix("-rq") for field in Field}
    for named in re.findall(r'service=~"([^"]+)"', " ".join(expressions())):
        assert set(named.split("|")) <= words


def test_the_dashboard_asks_one_source_and_its_panels_do_not_overlap():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard()["panels"]]
    assert len(set(places)) == len(places)
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"]} == {"${source}"}
    assert [variable["name"] for variable in dashboard()["templating"]["list"]] == ["source"]
