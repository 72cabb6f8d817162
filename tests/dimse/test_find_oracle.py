"""C-FIND and QIDO find the same, and what a plain Python oracle finds: generated queries over values chosen to hurt."""

import itertools
import os
import random
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag

from dicomweb import params
from pacs.domain.attributes import BY_TAG, Rule
from pacs.domain.levels import Level
from pacs.domain.query import Condition, Query
from tests.dimse.door import Door, opened
from tests.dimse.sender import Answer, Sender
from tests.hard_values import archive, invent_query
from tests.oracle import Oracle
from tests.services.search_shelf import fill

if TYPE_CHECKING:
    from pacs.node import Node

PATIENT_FIND, STUDY_FIND = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT = "1.2.840.10008.1.2.1"
NAMES = {Level.PATIENT: "PATIENT", Level.STUDY: "STUDY", Level.SERIES: "SERIES", Level.INSTANCE: "IMAGE"}
UIDS = {Level.STUDY: 0x0020000D, Level.SERIES: 0x0020000E, Level.INSTANCE: 0x00080018}
QUERIES = int(os.environ.get("SEARCH_QUERIES", "100"))
SEED = int(os.environ.get("SEARCH_SEED", "7"))


@pytest.fixture(scope="module")
def oracle(database_url: str) -> Oracle:
    objects = list(archive(random.Random(SEED)))
    with psycopg.connect(database_url) as connection:
        fill(connection, objects)
    return Oracle(objects)


@pytest.fixture(scope="module")
def live(node: "Node", oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door"), node=node) as door:
        yield door


def queries() -> Iterator[Query]:
    """Generated ones that a data set can hold: no key twice, sequences of levels that are answered."""
    rng, made = random.Random(SEED), 0
    while made < QUERIES:
        query = invent_query(rng)
        tops = [condition.path[0] for condition in query.conditions]
        below = any(BY_TAG[tag].rule is Rule.SEQUENCE and BY_TAG[tag].level > query.level for tag in tops)
        if len(set(tops)) == len(tops) and not below and not query.show_hidden:
            made += 1
            yield query


def element(tag: int, vr: str, value: bytes) -> bytes:
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    long = vr in ("SQ", "UT", "UC", "UR", "UN")
    return head + (struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))) + value


def key(condition: Condition) -> bytes:
    tag = condition.path[-1]
    vr = dictionary_VR(tag)
    text = "\\".join(condition.values)
    if vr == "US":
        numbers = [value for value in text.split("\\") if value.strip('"* ')]
        inner = element(tag, vr, b"".join(struct.pack("<H", int(number)) for number in numbers))
    else:
        inner = element(tag, vr, text.encode())
    if len(condition.path) == 1:
        return inner
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    return element(condition.path[0], "SQ", item)


def identifier(query: Query) -> bytes:
    """The query as a modality writes it, in UTF-8, asking for what names a match."""
    elements = {condition.path[0]: key(condition) for condition in query.conditions}
    elements[0x00080005] = element(0x00080005, "CS", b"ISO_IR 192")
    elements[0x00080052] = element(0x00080052, "CS", NAMES[query.level].encode())
    for tag in (0x00100020, 0x00100021, 0x0020000D, 0x0020000E, 0x00080018):
        if BY_TAG[tag].level <= query.level:
            elements.setdefault(tag, element(tag, BY_TAG[tag].vr, b""))
    return b"".join(elements[tag] for tag in sorted(elements))


def found(answers: list[Answer], level: Level) -> list[str]:
    assert answers[-1].status == 0, answers[-1]
    rows = [texts(answer.data) for answer in answers[:-1]]
    return [patient(row) if level is Level.PATIENT else row[UIDS[level]] for row in rows]


def texts(data: bytes) -> dict[int, str]:
    """The elements of an answer in Explicit VR, by hand: a library takes a millisecond for each."""
    place, read = 0, {}
    while place < len(data):
        group, number, vr, length = struct.unpack_from("<HH2sH", data, place)
        place += 8
        if vr in (b"SQ", b"UT", b"UC", b"UR", b"UN", b"OB", b"OW"):
            (length,) = struct.unpack_from("<I", data, place)
            place += 4
        read[group << 16 | number] = data[place : place + length].decode("utf-8", "replace").strip("\0 ")
        place += length
    return read


def patient(row: dict[int, str]) -> str:
    """ID and issuer, as the oracle names a patient."""
    identity, issuer = (
        "\\".join(one.strip() for one in row[tag].split("\\") if one.strip()) for tag in (0x00100020, 0x00100021)
    )
    return f"{identity}\\{issuer}" if identity else "no id"


def by_qido(node: "Node", query: Query) -> set[str]:
    """The same question as a URL."""
    pieces = [
        f"{'.'.join(map(keyword_for_tag, condition.path))}={quote(chr(92).join(condition.values))}"
        for condition in query.conditions
    ]
    asked = "&".join([*pieces, f"fuzzymatching={str(query.fuzzy).lower()}"])
    uid = f"{UIDS[query.level]:08X}"
    rows: Any = node.search.find(params.query(asked.encode(), query.level)).rows
    return {str(row[uid]["Value"][0]) for row in rows}


def test_both_doors_find_what_the_oracle_finds(live: Door, node: "Node", oracle: Oracle) -> None:
    """Relational queries; fuzzy matching of names and combined ranges of date and time where the query wants them."""
    contexts = [(STUDY_FIND, [EXPLICIT]), (PATIENT_FIND, [EXPLICIT])]
    hits = 0
    with ExitStack() as associations:
        senders = {}
        for combined, fuzzy in itertools.product((False, True), repeat=2):
            wish = bytes([1, combined, fuzzy])
            extended = (STUDY_FIND, wish), (PATIENT_FIND, wish)
            sender = associations.enter_context(Sender(live.address, contexts, extended=extended))
            assert dict(sender.accept.user.extended) == dict(extended)
            senders[combined, fuzzy] = sender
        for query in queries():
            sender = senders[query.combined, query.fuzzy]
            root = 3 if query.level is Level.PATIENT else 1
            model = PATIENT_FIND if root == 3 else STUDY_FIND
            answers = found(sender.find(model, identifier(query), root), query.level)
            wanted = oracle.find(query)
            if query.level is Level.PATIENT:
                assert sorted(answers) == sorted("no id" if name.startswith("study ") else name for name in wanted), (
                    query
                )
            else:
                assert len(set(answers)) == len(answers), query
                assert set(answers) == wanted, (query, set(answers) ^ wanted)
                assert by_qido(node, query) == oracle.find(replace(query, combined=True)), query
            hits += bool(answers)
    assert hits > QUERIES / 3


def test_without_negotiation_the_levels_above_must_be_named(live: Door) -> None:
    query = identifier(Query(Level.SERIES))
    with Sender(live.address, [(STUDY_FIND, [EXPLICIT])]) as plain:
        assert [answer.status for answer in plain.find(STUDY_FIND, query)] == [0xA900]
    with Sender(live.address, [(STUDY_FIND, [EXPLICIT])], extended=((STUDY_FIND, b"\x01"),)) as relational:
        assert len(relational.find(STUDY_FIND, query)) > 100
