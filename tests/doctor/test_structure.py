"""What the schema should hold is read from the revisions themselves, and can be made again from there."""

import re

from pacs.services.doctor.rounds import CHECKS
from pacs.services.doctor.structure import made


def test_a_fresh_database_is_what_its_revisions_say(looked):
    checks = [
        check for check in CHECKS if check.name in {"schema-object", "schema-function", "invalid-index", "schema"}
    ]
    assert [one.as_json() for one in looked(checks).found] == []


def test_each_statement_makes_one_thing_and_is_whole():
    for thing in made():
        assert len(re.findall(r"^CREATE ", thing.statement, re.MULTILINE)) == 1, thing.name
        assert thing.statement.count("(") == thing.statement.count(")"), thing.name
        assert thing.statement.count("$$") == (2 if thing.kind == "function" else 0), thing.name
        assert thing.statement.endswith(";")


def test_every_index_and_function_can_be_made_again(looked, node):
    names = {"schema-object", "schema-function"}
    checks = [check for check in CHECKS if check.name in names]
    with node.pool.connection() as connection:
        for thing in made():
            if thing.kind == "index":
                connection.execute(f"DROP INDEX {thing.name}")
            elif thing.kind == "function" and thing.name != "refuse_change":  # a trigger needs it
                connection.execute(f"DROP FUNCTION {thing.name} CASCADE")
    report = looked(checks, fix=True)
    assert {one.check.name: one.failed for one in report.found if one.failed} == {}
    assert looked(checks).found == []
