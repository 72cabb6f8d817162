"""Days and times as people type them: ISO 8601, in UTC unless an offset says otherwise."""

from datetime import UTC, date, datetime, timedelta

from pacs.errors import BadRequest

DAY = len("2026-01-31")
WANTED = "is a day (2026-01-31) or a time (2026-01-31T08:00:00Z)."


def moment(text: str, name: str, *, end: bool = False) -> datetime:
    """The time that a text names; a day stands for its beginning, or with `end` for that of the next day.

    Raises BadRequest, which names what `name` should hold and does not quote the text.
    """
    try:
        if len(text) == DAY:
            day = date.fromisoformat(text) + timedelta(days=1 if end else 0)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        found = datetime.fromisoformat(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name} {WANTED}") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
