"""How a picture is asked for: the parameters of PS3.18 8.3.5 and of WADO-URI (9.4), as one `Look`."""

import math
import re
from collections.abc import Sequence

from dicomweb import params
from dicomweb.params import Pair
from pacs.domain.presentation import FUNCTIONS, LINEAR, Window
from pacs.domain.render import JPEG, QUALITY, WHOLE, Look, Region, Viewport
from pacs.errors import BadRequest

LONGEST_SIDE = 4096  # pixels of a viewport
THUMBNAIL = Viewport(160, 160, enlarge=False)
ANNOTATIONS = frozenset({"patient", "technique"})
PROFILES = frozenset({"no", "yes", "srgb", "adobergb", "rommrgb"})
_NUMBER = re.compile(r"[+-]?(\d{1,12}(\.\d{0,12})?|\.\d{1,12})([eE][+-]?\d{1,3})?", re.ASCII)


def rendered(found: Sequence[Pair], media_type: str = JPEG) -> Look:
    """The look that `viewport`, `window` and `quality` ask for. Raises BadRequest for a malformed value."""
    size = params.first(found, "viewport")
    window = params.first(found, "window")
    return Look(
        media_type,
        WHOLE if size is None else _viewport(size),
        None if window is None else _window(window),
        quality(found, "quality"),
    )


def thumbnail(found: Sequence[Pair], media_type: str = JPEG) -> Look:
    """The same for a small picture, which is never larger than its image (PS3.18 10.4.1.1.4)."""
    size = params.first(found, "viewport")
    if size is None:
        return Look(media_type, THUMBNAIL)
    wanted = _viewport(size)
    return Look(media_type, Viewport(wanted.width, wanted.height, wanted.region, enlarge=False))


def unsupported(found: Sequence[Pair]) -> str:
    """A sentence about well-formed wishes that are not fulfilled, for a Warning header (8.3.5.1.1), or "".

    Raises BadRequest for values that the standard does not know.
    """
    asked = {name: _words(found, name) for name in ("annotation", "iccprofile")}
    if not asked["annotation"] <= ANNOTATIONS:
        raise BadRequest("annotation is a list of patient and technique.")
    if not asked["iccprofile"] <= PROFILES:
        raise BadRequest(f"iccprofile is one of {', '.join(sorted(PROFILES))}.")
    asked["iccprofile"] -= {"no"}
    values = sorted(asked["annotation"] | asked["iccprofile"])
    return f"The following values are not supported: {', '.join(values)}" if values else ""


def uri(found: Sequence[Pair], media_type: str = JPEG) -> Look:
    """The look that WADO-URI's rows, columns, region, windowCenter, windowWidth and imageQuality ask for (9.4.1).

    Raises BadRequest.
    """
    rows, columns = (_side(found, name) for name in ("rows", "columns"))
    region = params.first(found, "region")
    viewport = Viewport(columns, rows, None if region is None else _part(region))
    center, width = (params.first(found, name) for name in ("windowCenter", "windowWidth"))
    if (center is None) != (width is None):
        raise BadRequest("windowCenter and windowWidth belong together.")
    window = None if center is None else _window(f"{center},{width}")
    return Look(media_type, viewport, window, quality(found, "imageQuality"))


def frame_number(found: Sequence[Pair]) -> int | None:
    """WADO-URI's frameNumber, from 1. Raises BadRequest."""
    text = params.first(found, "frameNumber")
    if text is None:
        return None
    if (number := _whole(text)) < 1:
        raise BadRequest("frameNumber is a whole number from 1.")
    return number


def _words(found: Sequence[Pair], name: str) -> set[str]:
    text = params.first(found, name)
    return set() if text is None else {word.strip().lower() for word in text.split(",")}


def quality(found: Sequence[Pair], name: str = "quality") -> int:
    """How well a lossy picture or code stream is kept, 1 to 100 (8.3.5.1.2). Raises BadRequest."""
    text = params.first(found, name)
    if text is None:
        return QUALITY
    if not 1 <= (number := _whole(text)) <= 100:
        raise BadRequest(f"{name} is a whole number from 1 to 100.")
    return number


def _side(found: Sequence[Pair], name: str) -> int | None:
    text = params.first(found, name)
    if text is None:
        return None
    if not 1 <= (number := _whole(text)) <= LONGEST_SIDE:
        raise BadRequest(f"{name} is a whole number of pixels from 1 to {LONGEST_SIDE}.")
    return number


def _viewport(text: str) -> Viewport:
    """vw,vh and, for a part of the image, sx,sy,sw,sh of which each may be left empty (8.3.5.1.3)."""
    pieces = [piece.strip() for piece in text.split(",")]
    width, height = (_whole(piece) for piece in [*pieces, ""][:2])
    if not 2 <= len(pieces) <= 6 or not 1 <= min(width, height) <= max(width, height) <= LONGEST_SIDE:
        raise BadRequest(f"viewport is vw,vh or vw,vh,sx,sy,sw,sh; sides are from 1 to {LONGEST_SIDE} pixels.")
    if len(pieces) == 2:
        return Viewport(width, height)
    x, y, across, down = (_real(piece) if piece else None for piece in [*pieces[2:], *[""] * (6 - len(pieces))])
    if across == 0 or down == 0 or min(x or 0, y or 0) < 0:
        raise BadRequest("viewport's region begins inside the image and has a width and a height.")
    return Viewport(width, height, Region(x or 0.0, y or 0.0, across, down))


def _part(text: str) -> Region:
    """left,top,right,bottom as parts of the image from 0 to 1 (9.4.1)."""
    pieces = text.split(",")
    corners = [_real(piece.strip()) for piece in pieces] if len(pieces) == 4 else []
    if len(corners) != 4 or not (0 <= corners[0] < corners[2] <= 1 and 0 <= corners[1] < corners[3] <= 1):
        raise BadRequest("region is left,top,right,bottom, each from 0 to 1.")
    left, top, right, bottom = corners
    return Region(left, top, right - left, bottom - top, relative=True)


def _window(text: str) -> Window:
    """center,width,function; without a function it is linear (8.3.5.1.4)."""
    pieces = [piece.strip() for piece in text.split(",")]
    if len(pieces) not in {2, 3}:
        raise BadRequest("window is center,width,function.")
    function = pieces[2].upper().replace("-", "_") if len(pieces) == 3 else LINEAR
    if function not in FUNCTIONS:
        raise BadRequest("A window's function is linear, linear-exact or sigmoid.")
    center, width = _real(pieces[0]), _real(pieces[1])
    if width <= 0 or (function == LINEAR and width < 1):
        raise BadRequest("A window's width is more than 0, and at least 1 where it is linear.")
    return Window(center, width, function)


def _whole(text: str) -> int:
    """A whole number, or -1 where the text is none."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1


def _real(text: str) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise BadRequest("A rendering parameter is no decimal number.")
    return number
