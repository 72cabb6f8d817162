"""Searches over HTTP find what a plain Python oracle finds, over 200 studies of values chosen to hurt.

`SEARCH_QUERIES=500` asks as many questions as that, `SEARCH_SEED` others.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import psycopg
import pytest
from pydicom.datadict import keyword_for_tag

from pacs.domain.levels import Level
from pacs.domain.query import Query
from tests.conformance.conftest import value
from tests.hard_values import archive, invent_query
from tests.oracle import Oracle
from tests.services.search_shelf import fill

QUERIES = int(os.environ.get("SEARCH_QUERIES", "80"))
SEED = int(os.environ.get("SEARCH_SEED", "7"))
PLACES = {Level.STUDY: "/studies", Level.SERIES: "/series", Level.INSTANCE: "/instances"}
NAMED_BY = {Level.STUDY: "0020000D", Level.SERIES: "0020000E", Level.INSTANCE: "00080018"}


@pytest.fixture(scope="module")
def oracle(database_url: str) -> Oracle:
    objects = list(archive(random.Random(SEED)))
    with psycopg.connect(database_url) as connection:
        fill(connection, objects)
    return Oracle(objects)


def questions(rng: random.Random) -> Iterator[Query]:
    """Queries that a URL can ask: no hidden results, no patients, no key twice, which may mean a list."""
    while True:
        query = replace(invent_query(rng), combined=True, show_hidden=False)
        paths = [condition.path for condition in query.conditions]
        if query.level in PLACES and len(paths) == len(set(paths)):
            yield query


def asked(rng: random.Random, query: Query) -> str:
    """The query as a URL: keywords, tags of either case, dotted mixtures of them."""
    pairs = [
        (".".join(_named(rng, tag) for tag in condition.path), "\\".join(condition.values))
        for condition in query.conditions
    ]
    if query.fuzzy:
        pairs.append(("fuzzymatching", "true"))
    return f"{PLACES[query.level]}?{urlencode(pairs, quote_via=quote)}"


def _named(rng: random.Random, tag: int) -> str:
    return rng.choice([keyword_for_tag(tag), f"{tag:08X}", f"{tag:08x}"])


def found(http: httpx.Client, query: Query, url: str) -> list[str]:
    answer = http.get(url)
    assert answer.status_code == 200, (url, answer.text)
    assert "warning" not in answer.headers, (url, answer.headers["warning"])
    rows: list[dict[str, Any]] = answer.json()
    return [value(row, NAMED_BY[query.level]) for row in rows]


@pytest.mark.parametrize("part", range(4))
def test_q03_searches_find_what_the_oracle_finds(http: httpx.Client, oracle: Oracle, part: int) -> None:
    rng, hits = random.Random(SEED * 100 + part), 0
    for _, query in zip(range(QUERIES // 4), questions(rng), strict=False):
        url = asked(rng, query)
        names = found(http, query, url)
        assert len(names) == len(set(names)), url
        assert set(names) == oracle.find(query), url
        hits += bool(names)
    assert hits > QUERIES / 4 / 4  # the keys are worth the name
