"""Whatever stands in a manifest, reading it ends with a manifest or with findings."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ai_sidecar.manifest import parse
from tests.ai_sidecar import packages

FILES = "\n".join(
    f'"{name}" = "{"0" * 64}"' for name in ("m.onnx", "LICENSE", "golden/input.npz", "golden/expected.json")
)
GOOD = packages.MANIFEST.format(files=FILES, **packages.DEFAULTS)
VALUES = ("1", "-1", "1e400", "nan", '""', '"x"', "[]", "[[]]", "[1, 2]", '["a", 1]', "{}", "{ a = 1 }", "true",
          "1979-05-27", "07:32:00", '"\\u0000"', "99999999999999999999")  # fmt: skip


def test_a_good_manifest_has_no_findings():
    manifest, findings = parse(GOOD)
    assert findings == []
    assert manifest.onnx_file == "m.onnx"
    assert manifest.input[0] == "x"


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 10_000), st.sampled_from(VALUES))
def test_any_value_anywhere_is_read_or_named(seed, value):
    lines = GOOD.splitlines()
    places = [n for n, line in enumerate(lines) if " = " in line]
    place = random.Random(seed).choice(places)
    lines[place] = f"{lines[place].split(' = ')[0]} = {value}"
    manifest, findings = parse("\n".join(lines))
    assert (manifest is None) == bool(findings)
    assert all(finding.sentence.endswith(".") for finding in findings)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10_000))
def test_any_line_may_be_missing_or_twice(seed):
    chance = random.Random(seed)
    lines = GOOD.splitlines()
    for _ in range(3):
        place = chance.randrange(len(lines))
        lines[place : place + 1] = [lines[place]] * chance.choice((0, 2))
    manifest, findings = parse("\n".join(lines))
    assert (manifest is None) == bool(findings)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=200))
def test_any_text_is_no_manifest(text):
    manifest, findings = parse(text)
    assert manifest is None
    assert findings


def test_deep_nesting_is_no_manifest():
    assert parse("a = " + "[" * 5000)[0] is None
