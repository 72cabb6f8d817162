"""A batch that is sent now and answered later: the same rows, and nothing lost when the server goes meanwhile."""

import psycopg
import pytest
from pydicom.uid import generate_uid

from pacs.index import write
from pacs.index.write import Rejected, Unknown, Writer
from tests.index.test_write import item
from tests.services.specimens import ct


@pytest.fixture
def writer(database_url):
    made = Writer(database_url, "courier")
    yield made
    made.close()


@pytest.fixture
def connection(database_url):
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


def known_series(writer):
    study, series = generate_uid(), generate_uid()
    writer.store([item(ct(study, series))])
    return study, series


def count(connection, study):
    statement = "SELECT instance_count FROM study WHERE study_uid = %s"
    return connection.execute(statement, (study,)).fetchone()[0]


def test_only_objects_of_known_series_are_sent(writer):
    items = [item(ct())]
    assert not writer.send(items)
    assert writer.store(items)[0].outcome == "stored"


def test_what_was_sent_is_answered_in_its_order(writer, connection):
    study, series = known_series(writer)
    data = [ct(study, series) for _ in range(4)]
    items = [item(one) for one in (*data, data[1])]
    assert writer.send(items)
    outcomes = [verdict.outcome for verdict in writer.receive(items)]
    assert sorted(outcomes) == ["known", "stored", "stored", "stored", "stored"]
    assert outcomes[0] == outcomes[2] == outcomes[3] == "stored"
    assert count(connection, study) == 5


def test_a_backend_that_dies_in_between_loses_nothing(writer, connection):
    study, series = known_series(writer)
    for expected in (2, 3, 4):
        items = [item(ct(study, series))]
        assert writer.send(items)
        connection.execute("SELECT pg_terminate_backend(%s)", (writer._backend,))
        assert [verdict.outcome for verdict in writer.receive(items)] == ["stored"]
        assert count(connection, study) == expected
        writer.store([item(ct())])  # connected again
        assert writer._knows(items)


def test_a_silent_server_is_given_up_and_the_outcome_is_said_to_be_unknown(writer, connection, monkeypatch):
    monkeypatch.setattr(write, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(write, "LOST_BACKEND_SECONDS", 0.2)
    study, series = known_series(writer)
    items = [item(ct(study, series))]
    with connection.transaction():
        connection.execute("SELECT FROM study WHERE study_uid = %s FOR UPDATE", (study,))
        assert writer.send(items)
        with pytest.raises(Unknown):
            writer.receive(items)


def test_a_series_that_went_while_it_was_sent_is_made_again(writer, connection):
    study, series = known_series(writer)
    statement = """SELECT remove_instances(ARRAY(SELECT i.pk FROM instance i JOIN study s ON s.pk = study_pk
                                                 WHERE study_uid = %s), 'deleted')"""
    connection.execute(statement, (study,))
    items = [item(ct(study, series))]
    assert writer.send(items)
    assert writer.receive(items)[0].outcome == "stored"
    assert count(connection, study) == 1


def test_values_that_the_database_does_not_take_are_rejected(writer):
    study, series = known_series(writer)
    good = item(ct(study, series))
    bad = write.Item(good.line, good.object_name, good.further.replace(b'"size":', b'"size":"x",":":'), good.place)
    assert writer.send([bad])
    with pytest.raises(Rejected):
        writer.receive([bad])
    assert writer.send([good])
    assert writer.receive([good])[0].outcome == "stored"
