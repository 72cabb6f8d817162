"""How DICOM JSON rows are shown to people: names, dates, times, counts."""

from collections.abc import Callable
from typing import Any

from pacs.domain.attributes import BY_KEYWORD

Row = dict[str, dict[str, Any]]
# series of these modalities hold no pictures (PS3.3 C.7.3.1.1.1)
WITHOUT_PICTURES = frozenset({"SR", "PR", "KO", "DOC", "RTSTRUCT", "RTPLAN", "RTRECORD", "ECG", "PLAN", "REG", "FID"})


def values(row: Row, keyword: str) -> list[Any]:
    """The values of an attribute in a row; empty when it has none."""
    found: list[Any] = row.get(BY_KEYWORD[keyword].hex, {}).get("Value", [])
    return found


def text(row: Row, keyword: str) -> str:
    """The values of an attribute as one text."""
    return ", ".join(str(value) for value in values(row, keyword) if value is not None)


def name(row: Row, keyword: str = "PatientName") -> str:
    """A person name as `Family, Given` in each component group it has."""
    groups = (values(row, keyword) or [{}])[0] or {}
    shown = [groups.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
    return " · ".join(", ".join(part for part in group.split("^") if part) for group in shown if group)


def date(value: str) -> str:
    """`20260105` as `2026-01-05`; anything else as it stands."""
    return f"{value[:4]}-{value[4:6]}-{value[6:8]}" if len(value) == 8 and value.isdigit() else value


def time(value: str) -> str:
    """`093000.00` as `09:30`; anything else as it stands."""
    return f"{value[:2]}:{value[2:4]}" if value[:4].isdigit() and len(value) >= 4 else value


def moment(value: str | None) -> str:
    """An ISO time stamp without its fraction and `T`."""
    return (value or "")[:19].replace("T", " ")


def has_pictures(row: Row) -> bool:
    """Whether a series may have a thumbnail."""
    return text(row, "Modality") not in WITHOUT_PICTURES


FILTERS: dict[str, Callable[..., Any]] = {
    "attribute": text,
    "person": name,
    "dicom_date": date,
    "dicom_time": time,
    "moment": moment,
    "has_pictures": has_pictures,
}
