"""The rendering parameters of PS3.18 8.3.5 and 9.4: what they ask for, and that nothing malformed passes."""

from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb import looks, params
from pacs.domain.presentation import Window
from pacs.domain.render import Look, Region, Viewport
from pacs.errors import BadRequest


def rendered(query: str) -> Look:
    return looks.rendered(params.pairs(query.encode()))


def uri(query: str) -> Look:
    return looks.uri(params.pairs(query.encode()))


@pytest.mark.parametrize(
    ("query", "look"),
    [
        ("", Look()),
        ("something=else&viewports=1", Look()),
        ("quality=1", Look(quality=1)),
        ("viewport=64%2C32", Look(viewport=Viewport(64, 32))),
        ("viewport=64,32,1.5,2,-30,40", Look(viewport=Viewport(64, 32, Region(1.5, 2, -30, 40)))),
        ("viewport=64,32,,,30,", Look(viewport=Viewport(64, 32, Region(0, 0, 30, None)))),
        ("window=40,400,linear", Look(window=Window(40, 400, "LINEAR"))),
        ("window=-1024.5,4e3,sigmoid", Look(window=Window(-1024.5, 4000, "SIGMOID"))),
        ("window=0,0.1,linear-exact", Look(window=Window(0, 0.1, "LINEAR_EXACT"))),
        ("window=40%2C400", Look(window=Window(40, 400, "LINEAR"))),
    ],
)
def test_well_formed_wishes(query: str, look: Look) -> None:
    assert rendered(query) == look


MALFORMED = {
    "quality=": ("0", "101", "x", "", "5.5", "-1", "1e1"),
    "viewport=": ("", "5", "5,", "0,5", "5,-5", "a,b", "1,2,x", "1,2,3,4,5,6,7", "99999,5", "5,5,-1"),
    "viewport=5,5,0,0,": ("0,1", "1,0", "nan,1", "inf,1", "1e400,1"),
    "window=": ("", "5", "1,0,linear", "1,0.5,linear", "1,-2,sigmoid", "a,5,linear", "1,5,cubic", "1,2,3,4"),
}


@pytest.mark.parametrize("query", [f"{name}{bad}" for name, values in MALFORMED.items() for bad in values])
def test_malformed_wishes_are_bad_requests(query: str) -> None:
    with pytest.raises(BadRequest):
        rendered(query)


@given(st.text(max_size=30))
def test_any_text_is_a_look_or_a_bad_request(text: str) -> None:
    for name in ("viewport", "window", "quality", "rows", "columns", "region", "windowCenter", "frameNumber"):
        found = params.pairs(f"{name}={quote(text)}".encode())
        for read in (looks.rendered, looks.thumbnail, looks.uri, looks.unsupported, looks.frame_number):
            with suppress(BadRequest):
                read(found)


def test_a_thumbnail_is_small_and_never_enlarged() -> None:
    assert looks.thumbnail([]).viewport == looks.THUMBNAIL
    asked = looks.thumbnail(params.pairs(b"viewport=256%2C256"))
    assert asked.viewport == Viewport(256, 256, enlarge=False)


def test_what_is_not_supported_is_told_and_what_is_unknown_refused() -> None:
    assert looks.unsupported(params.pairs(b"annotation=patient,technique&iccprofile=no")).endswith("patient, technique")
    assert looks.unsupported(params.pairs(b"iccprofile=srgb")).endswith("srgb")
    assert looks.unsupported(params.pairs(b"iccprofile=no")) == ""
    for bad in (b"annotation=", b"annotation=name", b"iccprofile=best"):
        with pytest.raises(BadRequest):
            looks.unsupported(params.pairs(bad))


def test_wado_uri_has_names_of_its_own() -> None:
    found = uri("rows=64&columns=32&region=0.25,0,0.75,0.5&windowCenter=40&windowWidth=400&imageQuality=70")
    region = Region(0.25, 0, 0.5, 0.5, relative=True)
    assert found == Look(viewport=Viewport(32, 64, region), window=Window(40, 400), quality=70)
    assert uri("rows=64").viewport == Viewport(None, 64)


@pytest.mark.parametrize(
    "query",
    [
        *(f"rows={bad}" for bad in ("0", "x", "-1", "5000")),
        *(f"region={bad}" for bad in ("0,0,1", "0,0,1,2", "0.5,0,0.5,1", "1,1,0,0", "a,b,c,d")),
        "windowCenter=5",
        "windowWidth=5",
        "windowCenter=5&windowWidth=0",
        "imageQuality=0",
    ],
)
def test_malformed_parameters_of_wado_uri_are_bad_requests(query: str) -> None:
    with pytest.raises(BadRequest):
        uri(query)
