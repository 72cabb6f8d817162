import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.data import get_charset_files

from pacs.domain.admission import admit
from pacs.domain.charsets import decoder
from tests.domain.makers import part10

# pydicom leaves the escape sequences of GB 2312 in the text: not a judge of that one
CHARSET_FILES = [path for path in get_charset_files("*.dcm") if "2312" not in path]


@pytest.mark.parametrize("path", CHARSET_FILES)
def test_names_of_pydicoms_charset_files_are_decoded_as_pydicom_does(path: str) -> None:
    raw = open(path, "rb").read()  # noqa: SIM115
    elements = admit(raw).elements

    def value(tag: int) -> bytes:
        element = elements.get(tag)
        return b"" if element is None else raw[element.value_offset : element.value_offset + element.length]

    expected = str(pydicom.dcmread(path).get("PatientName", ""))
    assert decoder(value(0x00080005))(value(0x00100010)).strip(" =") == expected.strip(" =")


TERMS = ["", "ISO_IR 100", "ISO_IR 192", "GB18030", "GBK", "\\ISO 2022 IR 87", "ISO 2022 IR 13\\ISO 2022 IR 159",
         "\\ISO 2022 IR 149", "\\ISO 2022 IR 58", "ISO-IR 100", "iso_ir 144", "nonsense", "\\\\"]  # fmt: skip


@given(st.sampled_from(TERMS), st.binary(max_size=60))
@example("\\ISO 2022 IR 87", b"\x1b$B\x80\xff\x1b")
@example("GB18030", b"\x83\x36\xc7\x38")
def test_no_bytes_raise_or_yield_what_a_database_refuses(terms: str, raw: bytes) -> None:
    text = decoder(terms.encode())(raw)
    assert "\0" not in text
    assert "\x1b" not in text
    text.encode("utf-8")


LETTERS = {
    "ISO_IR 100": "abcÄßéñ",
    "ISO_IR 144": "abcЖЯщё",
    "ISO_IR 126": "abcΩψά",
    "ISO_IR 192": "aЖΩ王😀é",
    "GB18030": "aЖΩ王小東",
}


@given(st.data(), st.sampled_from(sorted(LETTERS)))
def test_text_written_by_pydicom_comes_back(data: st.DataObject, term: str) -> None:
    text = data.draw(st.text(LETTERS[term], min_size=1, max_size=20))
    ds = pydicom.Dataset()
    ds.SpecificCharacterSet, ds.StudyDescription = term, text
    raw = part10(ds)
    element = admit(raw).elements[0x00081030]
    found = decoder(term.encode())(raw[element.value_offset : element.value_offset + element.length])
    assert found.strip(" ") == text


def test_a_misspelt_term_still_counts() -> None:
    assert decoder(b"ISO-IR 144")("Я".encode("iso8859-5")) == "Я"
    assert decoder(b"ISO_IR_192 ")("Ж".encode()) == "Ж"


def test_undeclared_utf8_is_recognised_and_the_rest_is_latin1() -> None:
    assert decoder(b"")("Müller".encode()) == "Müller"
    assert decoder(b"")("Müller".encode("latin-1")) == "Müller"


def test_a_backslash_inside_a_multibyte_character_does_not_split() -> None:
    raw = "表".encode("shift_jis")
    assert raw[1:] == b"\\"
    assert decoder(b"ISO_IR 13")(raw) == "表"
