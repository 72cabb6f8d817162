"""The test that keeps a search to the part of the archive that its caller may see."""

from psycopg.sql import SQL, Composable

from pacs.domain.attributes import Rule
from pacs.domain.levels import Level
from pacs.domain.normal import normal_values
from pacs.domain.roles import Visible
from pacs.index.criteria import Parameters

_INSTITUTION = SQL("string_to_array(t.institution_name, '\\') && {}::text[]")
_SENT_BY = SQL(
    "EXISTS (SELECT FROM instance AS sent WHERE sent.study_pk = t.pk AND sent.door = 'dimse' "
    "AND sent.peer = ANY({}::text[]))"
)
_LABEL = SQL("EXISTS (SELECT FROM study_label AS l WHERE l.study_pk = t.pk AND l.label = ANY({}::text[]))")


def visible_test(parameters: Parameters, visible: Visible, level: Level) -> Composable:
    """Over the aliases of a query at this level: the study is one of those; of a patient, one study is."""
    tests = [
        (_INSTITUTION, normal_values(Rule.TEXT, visible.institutions)),
        (_SENT_BY, list(visible.aes)),
        (_LABEL, list(visible.labels)),
    ]
    some = [test.format(parameters.add(words)) for test, words in tests if words]
    of_study = SQL("({})").format(SQL(" OR ").join(some)) if some else SQL("false")
    if level > Level.PATIENT:
        return of_study
    return SQL("EXISTS (SELECT FROM study AS t WHERE t.patient_pk = p.pk AND {})").format(of_study)
