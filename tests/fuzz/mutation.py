"""Inputs made of seeds by a few damages each, as a hypothesis strategy, so that what is found is also made small."""

from collections.abc import Sequence

from hypothesis import strategies as st

# lengths, counts and marks that parsers stumble over
TELLING = (
    b"\x00",
    b"\xff",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\r\xe0",
    b"\xfe\xff\xdd\xe0",
    b"SQ\x00\x00\xff\xff\xff\xff",
    b"UN\x00\x00",
    b"\r\n--boundary",
    b"--",
    b"\x1b$B",
    b"\\",
    b"*",
    b"-",
    b"=",
    b"\xc3(",
    b"\x00\x00\x00\x80",
    b"\x00\x02\x00\x01",
    b'{"vr":"SQ"}',
    b"1e999",
)


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds after up to eight damages, or nothing of them at all."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.binary(max_size=300))
    data = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(data)))
        new = draw(st.sampled_from(TELLING) | st.binary(min_size=1, max_size=8))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            data[at : at + len(new)] = new
        elif kind == 1:
            data[at:at] = new
        elif kind == 2:
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == 3:
            del data[at:]
        else:
            end = at + draw(st.integers(1, 64))
            data[at:at] = bytes(data[at:end]) * draw(st.integers(1, 20))
    return bytes(data)
