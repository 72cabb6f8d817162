"""The reader of our YAML reads what YAML says, and refuses what it would have to guess."""

import pytest

from tests.deploy.plainyaml import NotPlain, load


def test_blocks_flows_scalars_and_merges_are_read_as_yaml_says():
    text = """
    base: &base   # a comment
      a: 1
      b: "two # no comment"
      c: [x, "y, z", 'it''s', {k: v}]
    ours:
      <<: *base
      a: "1"
      list:
      - name: n
        on-top: true
      - plain http://host:80/path
      empty:
    """
    base = {"a": 1, "b": "two # no comment", "c": ["x", "y, z", "it's", {"k": "v"}]}
    ours = base | {"a": "1", "list": [{"name": "n", "on-top": True}, "plain http://host:80/path"], "empty": None}
    assert load(text) == {"base": base, "ours": ours}


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "a: |\n  x", "a: no", "a\n", "a: b: c", "a: 'b' c", "a: 1\n   b: 2", "\ta: 1", "a: [1"]
)
def test_what_is_not_plain_is_an_error(text):
    with pytest.raises((NotPlain, KeyError)):
        load(text)
