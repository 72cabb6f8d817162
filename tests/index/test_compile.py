"""The statements that searches become: values stay out of the text, and the keys people use find an index."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL
from pydicom.datadict import tag_for_keyword

from pacs.domain.attributes import ATTRIBUTES, Rule
from pacs.domain.levels import Level
from pacs.domain.query import Condition, Query
from pacs.index.compile import CHARACTER_SET, LISTED, compile_query
from pacs.index.computed import computed
from pacs.index.moments import TIMEZONE

STUDIES = 3000
VALUES = {Rule.UID: "1.2", Rule.DATE: "20200101", Rule.TIME: "10", Rule.NUMBER: "1"}
WILD = frozenset({Rule.NAME, Rule.TEXT, Rule.NARRATIVE})


@pytest.fixture(scope="module")
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A database with many studies, of which statistics are known."""
    with psycopg.connect(database_url, autocommit=True) as opened:
        opened.execute(
            """
            WITH who AS (INSERT INTO patient (identity, patient_id, issuer_of_patient_id, patient_name,
                                              patient_birth_date, patient_sex, attrs)
                         SELECT n::text, 'ID' || n, '', 'name' || md5(n::text), '', '', '{}'
                         FROM generate_series(1, %(n)s) AS n RETURNING pk, patient_id, patient_name)
            INSERT INTO study (patient_pk, study_uid, patient_id, issuer_of_patient_id, patient_name,
                               patient_birth_date, patient_sex, study_date, study_time, accession_number, study_id,
                               referring_physician_name, study_description, institution_name, instance_count, attrs)
            SELECT pk, '1.2.' || pk, patient_id, '', patient_name, '', '', to_char(date '2000-01-01' + pk::int,
                   'YYYYMMDD'), '', 'A' || pk, '', '', '', '', 1, '{}' FROM who
            """,
            {"n": STUDIES},
        )
        opened.execute(
            """
            WITH own AS (INSERT INTO series (study_pk, series_uid, modality, series_number, series_description,
                                             series_date, series_time, body_part_examined, protocol_name,
                                             performed_procedure_step_start_date,
                                             performed_procedure_step_start_time, instance_count, attrs)
                         SELECT pk, study_uid || '.1', 'CT', '1', '', '', '', '', '', '', '', 1, '{}' FROM study
                         RETURNING pk, study_pk, series_uid)
            INSERT INTO instance (series_pk, study_pk, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
                                  instance_number, content_date, content_time, number_of_frames, attrs, object_name,
                                  size, data_offset, sha256, data_sha256, original, door, peer)
            SELECT pk, study_pk, series_uid || '.1', '', '', '1', '', '', 0, '{}', series_uid, 0, 0, '', '', true,
                   '', '' FROM own
            """
        )
        opened.execute("ANALYZE")
        yield opened


def query(level: Level, *conditions: tuple[str, str], limit: int | None = 101) -> Query:
    return Query(level, tuple(Condition((tag_for_keyword(k) or 0,), (v,)) for k, v in conditions), limit=limit)


def plan(connection: psycopg.Connection[Any], asked: Query) -> str:
    outputs = SQL("p.pk" if asked.level is Level.PATIENT else "t.pk")
    statement = compile_query(asked, outputs, limit=asked.limit or 100)
    text = SQL("EXPLAIN {}").format(statement.text)
    return "\n".join(row[0] for row in connection.execute(text, statement.values, prepare=False))


@pytest.mark.parametrize(
    ("level", "keyword", "value", "index"),
    [
        (Level.STUDY, "StudyInstanceUID", "1.2.7", "study_study_uid_key"),
        (Level.STUDY, "StudyInstanceUID", "1.2.7,1.2.8", "study_study_uid_key"),
        (Level.STUDY, "PatientID", "ID7", "study_by_patient_id"),
        (Level.STUDY, "PatientID", "ID7*", "study_by_patient_id"),
        (Level.STUDY, "AccessionNumber", "A7", "study_by_accession"),
        (Level.STUDY, "PatientName", "NAMEab*", "study_by_name"),
        (Level.STUDY, "PatientName", "nameab", "study_by_name"),
        (Level.STUDY, "StudyDate", "20010101-20010103", "study_by_date"),
        (Level.STUDY, "ModalitiesInStudy", "", "study_by_date"),  # the order of the list needs no sort
        (Level.PATIENT, "PatientID", "ID7", "patient_by_id"),
        (Level.PATIENT, "PatientName", "", "patient_by_name"),
        (Level.SERIES, "StudyInstanceUID", "1.2.7", "study_study_uid_key"),
        (Level.SERIES, "SeriesInstanceUID", "1.2.7.1", "series_by_uid"),
        (Level.INSTANCE, "SeriesInstanceUID", "1.2.7.1", "instance_by_series"),
        (Level.INSTANCE, "SOPInstanceUID", "1.2.7.1.1", "instance_sop_instance_uid_key"),
    ],
)
def test_the_keys_people_use_find_an_index(
    connection: psycopg.Connection[Any], level: Level, keyword: str, value: str, index: str
) -> None:
    found = plan(connection, query(level, (keyword, value)))
    assert index in found
    assert "Seq Scan on study" not in found


def test_values_never_stand_in_the_text(connection: psycopg.Connection[Any]) -> None:
    nasty = "'; DROP TABLE study; --%s%(p0)s{}\\"
    for attribute in ATTRIBUTES:
        if attribute.rule in (*WILD, Rule.EXACT) and attribute.tag not in (CHARACTER_SET, TIMEZONE.tag):
            asked = Query(attribute.level, (Condition((attribute.tag,), (nasty,)),))
            statement = compile_query(asked, SQL("1"), limit=1)
            assert "DROP TABLE" not in statement.text.as_string(connection)
            assert connection.execute(statement.text, statement.values).fetchall() == []


def test_every_attribute_that_is_not_stored_is_computed() -> None:
    for attribute in ATTRIBUTES:
        if not attribute.stored:
            assert computed(attribute, attribute.level, show_hidden=False)


def test_every_listed_column_has_its_index(connection: psycopg.Connection[Any]) -> None:
    indexes = {row[0] for row in connection.execute("SELECT indexname FROM pg_indexes")}
    assert {f"{table}_many_{column}" for table, column in LISTED} <= indexes


@pytest.mark.parametrize("level", list(Level))
def test_every_attribute_can_be_a_key_at_every_level(connection: psycopg.Connection[Any], level: Level) -> None:
    for attribute in ATTRIBUTES:
        if attribute is TIMEZONE:
            continue  # says how others are read
        value = VALUES.get(attribute.rule, "a")
        forms = [value, f'{value}\\""', *([f"{value}*"] if attribute.rule in WILD else [])]
        for form in [] if attribute.rule is Rule.SEQUENCE else forms:
            asked = Query(level, (Condition((attribute.tag,), (form,)),), show_hidden=form is value)
            statement = compile_query(asked, SQL("1"), limit=1)
            connection.execute(statement.text, statement.values).fetchall()
