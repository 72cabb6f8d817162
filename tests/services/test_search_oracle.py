"""Every search finds what a plain Python oracle finds, over objects and keys chosen to hurt."""

import os
import random
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from pacs.domain.levels import Level
from pacs.domain.query import Query
from pacs.services.search import Search
from tests.hard_values import archive, invent_query
from tests.oracle import Oracle
from tests.services.search_shelf import fill

QUERIES = int(os.environ.get("SEARCH_QUERIES", "150"))
SEED = int(os.environ.get("SEARCH_SEED", "1"))


@pytest.fixture(scope="module")
def oracle(database_url: str) -> Oracle:
    objects = list(archive(random.Random(SEED)))
    with psycopg.connect(database_url) as connection:
        fill(connection, objects)
    return Oracle(objects)


@pytest.fixture(scope="module")
def search(database_url: str, oracle: Oracle) -> Iterator[Search]:
    with ConnectionPool(database_url, min_size=1, open=True) as pool:
        yield Search(pool)


def names(search: Search, oracle: Oracle, query: Query) -> list[str]:
    """The names of what the search finds, as the oracle writes them."""
    uid = {Level.STUDY: "0020000D", Level.SERIES: "0020000E", Level.INSTANCE: "00080018"}.get(query.level)
    if uid:
        return [str(row[uid]["Value"][0]) for row in search.find(query).rows]  # type: ignore[index]
    found = []
    for row in search.find(replace(query, include_all=True)).rows:
        ids = row["00100020"].get("Value", [])
        issuers = row.get("00100021", {}).get("Value", [])
        parts = ["\\".join(v.strip() for v in values if v and v.strip()) for values in (ids, issuers)]  # type: ignore[attr-defined]
        found.append("\\".join(parts) if parts[0] else "no id")
    return found


@pytest.mark.parametrize("part", range(5))
def test_search_finds_what_the_oracle_finds(search: Search, oracle: Oracle, part: int) -> None:
    rng = random.Random(SEED * 1000 + part)
    hits = 0
    for number in range(QUERIES // 5):
        query = invent_query(rng)
        wanted = oracle.find(query)
        found = names(search, oracle, query)
        if query.level is Level.PATIENT:
            wanted_list = sorted("no id" if name.startswith("study ") else name for name in wanted)
            assert sorted(found) == wanted_list, (number, query)
        else:
            assert len(found) == len(set(found)), (number, query)
            assert set(found) == wanted, (number, query, set(found) ^ wanted)
        hits += bool(found)
    assert hits > QUERIES / 5 / 3  # the keys are worth the name
