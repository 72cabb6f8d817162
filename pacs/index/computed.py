"""What the index computes for an answer, with and without the results that are hidden (rejected or superseded).

Counters in the tables count every instance. Hidden ones are few and have an index of their own, so what is shown is
the counter less a sum on that index; only where a study has some is anything else counted anew. Expressions are over
the aliases p, t, s, i of patient, study, series and instance.
"""

from collections.abc import Mapping

from psycopg.sql import SQL, Composable

from pacs.domain.attributes import Attribute
from pacs.domain.levels import Level

_HIDDEN_IN_STUDY = SQL("(SELECT count(*) FROM instance AS h WHERE h.study_pk = t.pk AND h.hidden)")
_HIDDEN_IN_SERIES = SQL(
    "(SELECT count(*) FROM instance AS h WHERE h.study_pk = s.study_pk AND h.series_pk = s.pk AND h.hidden)"
)
_STUDY_SHOWN = SQL("t.instance_count > {}").format(_HIDDEN_IN_STUDY)

# what makes a row exist for a caller who does not see hidden results: found out for each row
SHOWN: Mapping[Level, Composable] = {
    Level.PATIENT: SQL("EXISTS (SELECT FROM study AS t WHERE t.patient_pk = p.pk AND {})").format(_STUDY_SHOWN),
    Level.STUDY: _STUDY_SHOWN,
    Level.SERIES: SQL("s.instance_count > {}").format(_HIDDEN_IN_SERIES),
    Level.INSTANCE: SQL("NOT i.hidden"),
}
# the same for long lists: the few without anything to show are listed once, and the rows that a page skips are read
# from the index alone
SHOWN_IN_LISTS: Mapping[Level, Composable] = {
    **SHOWN,
    Level.STUDY: SQL(
        "t.pk NOT IN (SELECT z.pk FROM (SELECT h.study_pk, count(*) AS n FROM instance AS h WHERE h.hidden "
        "GROUP BY h.study_pk) AS few JOIN study AS z ON z.pk = few.study_pk WHERE z.instance_count <= few.n)"
    ),
    Level.SERIES: SQL(
        "s.pk NOT IN (SELECT z.pk FROM (SELECT h.series_pk, count(*) AS n FROM instance AS h WHERE h.hidden "
        "GROUP BY h.series_pk) AS few JOIN series AS z ON z.pk = few.series_pk WHERE z.instance_count <= few.n)"
    ),
}

_SERIES_LEFT = SQL(
    "(SELECT {what} FROM series AS s WHERE s.study_pk = t.pk AND s.instance_count > "
    "(SELECT count(*) FROM instance AS h WHERE h.study_pk = s.study_pk AND h.series_pk = s.pk AND h.hidden))"
)
_UNLESS_HIDDEN = SQL("CASE WHEN {hidden} = 0 THEN {counted} ELSE {left} END")


def _left(counted: str, left: Composable) -> Composable:
    return _UNLESS_HIDDEN.format(hidden=_HIDDEN_IN_STUDY, counted=SQL("t.{}").format(SQL(counted)), left=left)


_MODALITIES_LEFT = _SERIES_LEFT.format(what=SQL("coalesce(string_agg(DISTINCT nullif(s.modality, ''), '\\'), '')"))
_CLASSES_LEFT = SQL(
    "(SELECT coalesce(string_agg(DISTINCT v.sop_class_uid, '\\'), '') FROM instance AS v "
    "WHERE v.study_pk = t.pk AND NOT v.hidden)"
)
_OF_PATIENT = SQL("(SELECT coalesce(sum({}), 0)::bigint FROM study AS t WHERE t.patient_pk = p.pk AND {})")
_SERIES_COUNT = _left("series_count", _SERIES_LEFT.format(what=SQL("count(*)")))
_INSTANCE_COUNT = SQL("t.instance_count - {}").format(_HIDDEN_IN_STUDY)

# keyword -> expression for callers who do not see hidden results, and for those who do
_COMPUTED: Mapping[str, tuple[Composable, Composable]] = {
    "NumberOfPatientRelatedStudies": (
        _OF_PATIENT.format(SQL("1"), _STUDY_SHOWN),
        _OF_PATIENT.format(SQL("1"), SQL("true")),
    ),
    "NumberOfPatientRelatedSeries": (
        _OF_PATIENT.format(_SERIES_COUNT, _STUDY_SHOWN),
        _OF_PATIENT.format(SQL("t.series_count"), SQL("true")),
    ),
    "NumberOfPatientRelatedInstances": (
        _OF_PATIENT.format(_INSTANCE_COUNT, _STUDY_SHOWN),
        _OF_PATIENT.format(SQL("t.instance_count"), SQL("true")),
    ),
    "ModalitiesInStudy": (_left("modalities", _MODALITIES_LEFT), SQL("t.modalities")),
    "SOPClassesInStudy": (_left("sop_classes", _CLASSES_LEFT), SQL("t.sop_classes")),
    "NumberOfStudyRelatedSeries": (_SERIES_COUNT, SQL("t.series_count")),
    "NumberOfStudyRelatedInstances": (_INSTANCE_COUNT, SQL("t.instance_count")),
    "NumberOfSeriesRelatedInstances": (SQL("s.instance_count - {}").format(_HIDDEN_IN_SERIES), SQL("s.instance_count")),
    "AvailableTransferSyntaxUID": (SQL("i.transfer_syntax_uid"), SQL("i.transfer_syntax_uid")),
}


def computed(attribute: Attribute, level: Level, *, show_hidden: bool) -> Composable:
    """The expression of an attribute that is not stored, for a statement whose rows are of this level."""
    expression = _COMPUTED[attribute.keyword][show_hidden]
    if attribute.level is Level.PATIENT and level > Level.PATIENT:  # only a patient's own rows have its alias
        return SQL("(SELECT {} FROM patient AS p WHERE p.pk = t.patient_pk)").format(expression)
    return expression
