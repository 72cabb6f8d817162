"""Objects and keys chosen to hurt: character sets, empty and several values, partial times, `%`, `_`, quotes.

`archive` invents the objects of studies, `invent_query` keys that are well-formed and likely to hit something; what a
query must find is for `tests.oracle` to say. All doors are tested with these.
"""

import random
from collections.abc import Iterator
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from pacs.domain.attributes import ATTRIBUTES, BY_KEYWORD
from pacs.domain.levels import Level
from pacs.domain.query import Condition, Query
from tests import oracle
from tests.services.search_shelf import Object

STUDIES = 200

NAMES = [
    ["Doe^John"], ["DOE^JOHN^^"], ["doe^jon"], ["Müller^Jörg"], ["MULLER^JORG"], ["Ångström^Åsa^^Dr."],
    ["Yamada^Tarou=山田^太郎=やまだ^たろう"], ["=山田^太郎"], ["Иванов^Пётр"], ["ИВАНОВ^ПЕТР"], ["Doe"],
    ["Straße^U"], ["100%^Real"], ["Under_score^A"], ['Quo"te^X'], [], [""], ["^Smith"], ["Doe^"], [" Doe ^ John "],
    ["Wang^XiaoDong=王^小东"], ["Doe^John^Middle^Dr^Jr"], ["Løvås^Øyvind"], ["Do*^J?hn"], ["Doe^^Only"],
    ["Mary Ann^Doe"], ["O'Brien^Mary"],
]  # fmt: skip
WORDS = [
    ["P1"], ["p1"], ["P_1"], ["P%1"], ["P11"], ["A'1"], ['A"1'], ["00123"], ["123"], [], [""], ["P1", "P2"], ["X 1"],
    [" X1 "], ["a*b"], ["a?b"], ["ab"], ["AB-12"], ["ä"], ["P1", "", "x"], ["$1"], ["(P1)"], ["%"], ["_"],
]  # fmt: skip
DATES = [["20200101"], ["20200131"], ["2020.01.15"], ["20191231"], [], ["notadate"], ["20210615"],
         ["20200101", "20210615"], ["20210615", "20190101"], ["19000101"], ["20201301"]]  # fmt: skip
TIMES = [["10"], ["1030"], ["103000"], ["103000.5"], ["10:30:15"], ["235959.999999"], [], ["0000"], ["103060"], ["99"],
         ["103000.123456"], ["11", "23"]]  # fmt: skip
NUMBERS = [["1"], ["01"], ["-3"], ["10"], [], ["x"], ["2"], ["+2"], ["0"]]
DECIMALS = [["70.50"], ["70.5"], ["-0"], ["1e1"], [], ["10"], ["0.25", "0.5"], ["10", "20.0"]]
CODES = [["CT"], ["MR"], ["SEG"], ["SR"], [], ["CR", "DX"]]
POOLS: dict[str, list[list[str]]] = {
    "PN": NAMES, "LO": WORDS, "SH": WORDS, "LT": [[w[0]] for w in WORDS if w], "DA": DATES, "TM": TIMES, "IS": NUMBERS,
    "DS": DECIMALS, "CS": CODES, "AS": [["034Y"], ["034M"], []], "US": [["512"], ["64"], []],
}  # fmt: skip
CLASSES = ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"]
SKIPPED = {"SpecificCharacterSet", "TimezoneOffsetFromUTC"}
INNER = {
    "RequestAttributesSequence": (
        "ScheduledProcedureStepID",
        "RequestedProcedureID",
        "ScheduledProcedureStepDescription",
    ),
    "ProcedureCodeSequence": ("CodeValue", "CodingSchemeDesignator"),
    "OtherPatientIDsSequence": ("PatientID", "IssuerOfPatientID"),
    "ReferencedSeriesSequence": ("SeriesInstanceUID",),
}
PLAIN = [a.keyword for a in ATTRIBUTES if a.stored and dictionary_VR(a.keyword) in POOLS and a.keyword not in SKIPPED]


def level_of(keyword: str) -> Level:
    return BY_KEYWORD[keyword].level


def some(rng: random.Random, keyword: str) -> list[str]:
    return rng.choice(POOLS[dictionary_VR(keyword)])


def invent(rng: random.Random, level: Level) -> dict[str, Any]:
    """Values for the attributes of a level; a good part of them absent."""
    made: dict[str, Any] = {k: some(rng, k) for k in PLAIN if level_of(k) is level and rng.random() < 0.8}
    for sequence, inner in INNER.items():
        if level_of(sequence) is level and rng.random() < 0.7:
            made[sequence] = [invent_item(rng, inner) for _ in range(rng.randrange(3))]
    return made


def invent_item(rng: random.Random, inner: tuple[str, ...]) -> dict[str, Any]:
    return {k: [f"1.9.{rng.randrange(4)}"] if "UID" in k else some(rng, k) for k in inner if rng.random() < 0.8}


def archive(rng: random.Random) -> Iterator[Object]:
    for study in range(STUDIES):
        of_study = invent(rng, Level.PATIENT) | invent(rng, Level.STUDY) | {"StudyInstanceUID": [f"1.2.{study}"]}
        for series in range(rng.randrange(1, 4)):
            of_series = invent(rng, Level.SERIES) | {"SeriesInstanceUID": [f"1.2.{study}.{series}"]}
            for instance in range(rng.randrange(1, 4)):
                of_instance = invent(rng, Level.INSTANCE) | {
                    "SOPInstanceUID": [f"1.2.{study}.{series}.{instance}"],
                    "SOPClassUID": [rng.choice(CLASSES)],
                }
                yield Object(of_study | of_series | of_instance, hidden=rng.random() < 0.15)


def wildcards(rng: random.Random, text: str) -> str:
    start = rng.randrange(len(text) + 1)
    end = rng.randrange(start, len(text) + 1)
    form = rng.choice(["{a}*", "*{b}", "*{m}*", "{a}*{b}", "{a}?{c}", "{a}**", "?{c}"])
    return form.format(a=text[:start], b=text[end:], m=text[start:end], c=text[start + 1 :])


def text_key(rng: random.Random, text: str, vr: str) -> str:
    if vr == "PN":
        family = text.partition("^")[0]
        text = rng.choice([text, text, text.upper(), text.lower(), f"{text}^", f"{text}^*", f"{family}^*"])
    if vr != "AS" and rng.random() < 0.5:
        text = wildcards(rng, text)
    return text if rng.random() < 0.9 else f" {text} "


def range_key(rng: random.Random, one: str, other: str) -> str:
    low, high = sorted((one, other))
    return rng.choice([one, f"{low}-{high}", f"{low}-", f"-{high}", f" {low} - {high} "])


def key(rng: random.Random, keyword: str) -> tuple[str, ...]:
    """A key for the attribute, well-formed, and likely to hit something."""
    vr = dictionary_VR(keyword)
    if rng.random() < 0.06:
        return (rng.choice(["", "*", '""']),)
    if vr == "UI":
        return (
            rng.choice(["1.2.3", "1.2.5,1.2.6", "1.2.5\\\\1.2.9", "1.2.7.0", "1.2.1.0.0,1.9.1", CLASSES[0], "1.9.2"]),
        )
    pool = [value for values in POOLS[vr] for value in values if oracle.usable(value, vr)]
    one, other = rng.choice(pool), rng.choice(pool)
    if vr in ("DA", "TM"):
        if vr == "TM" or rng.random() < 0.7:
            one, other = one.replace(".01.", "01").replace(":", ""), other.replace(".01.", "01").replace(":", "")
        made = range_key(rng, one.replace(".01.", "01"), other.replace(".01.", "01"))
    elif vr in oracle.NUMERIC:
        made = rng.choice([one, f"0{one}" if one[0].isdigit() else one, one])
    else:
        made = text_key(rng, one, vr)
    return (made, other) if rng.random() < 0.15 and vr not in ("LT", "TM", "DA") else (made,)


def condition(rng: random.Random, keyword: str) -> Condition:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    if keyword in INNER:
        inner = rng.choice(INNER[keyword])
        inner_tag = tag_for_keyword(inner)
        assert inner_tag is not None
        return Condition((tag, inner_tag), key(rng, inner))
    return Condition((tag,), key(rng, keyword))


COUNTS = ["NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"]
KEYS = [*PLAIN, *INNER, "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "ModalitiesInStudy",
        "SOPClassesInStudy", *COUNTS]  # fmt: skip
FAVOURITES = ["PatientName", "PatientID", "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "Modality"]
oracle.LEVEL_OF.update({keyword: level_of(keyword) for keyword in KEYS})


def invent_query(rng: random.Random) -> Query:
    level = rng.choice(list(Level))
    here = [k for k in KEYS if level_of(k) <= level]
    chosen = [rng.choice(FAVOURITES if rng.random() < 0.4 else here) for _ in range(rng.choice([1, 1, 2, 3]))]
    if rng.random() < 0.15:
        chosen.append(rng.choice(KEYS))
    if rng.random() < 0.15 and level > Level.PATIENT:
        chosen += ["StudyDate", "StudyTime"]
    if level is Level.PATIENT:  # counts of studies are not asked for through a patient
        chosen = [k for k in chosen if k not in (*COUNTS, "ModalitiesInStudy", "SOPClassesInStudy")]
    return Query(
        level,
        tuple(condition(rng, keyword) for keyword in chosen),
        fuzzy=rng.random() < 0.3,
        combined=rng.random() < 0.5,
        show_hidden=rng.random() < 0.2,
    )
