"""What is stored is given out: files, metadata, frames, bulk data."""

import os
import zlib

import numpy as np
import orjson
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from pacs.domain.levels import Scope
from pacs.errors import Damaged, NotFound
from pacs.node import build
from tests.services.specimens import SOURCE, ct, part10, put, query


def only(node, stored):
    [instance] = node.retrieve.locate(Scope(stored.study_uid, stored.series_uid, stored.sop_instance_uid))
    return instance


def test_instances_come_by_series_and_by_instance_number_as_a_number(node):
    study, first, second = generate_uid(), generate_uid(), generate_uid()
    for series, number in ((second, 2), (first, 1)):
        for instance in (10, 9, 100, 1):
            put(node, part10(ct(study, series, SeriesNumber=number, InstanceNumber=instance)))
    found = node.retrieve.locate(Scope(study))
    assert [i.instance_number for i in found] == ["1", "9", "10", "100"] * 2
    assert [i.series_uid for i in found] == [first] * 4 + [second] * 4
    assert len(node.retrieve.locate(Scope(study, first))) == 4


def test_what_is_not_stored_is_not_found(node):
    stored = put(node, part10(ct()))
    for scope in (
        Scope("1.2.3"),
        Scope(stored.study_uid, "1.2.3"),
        Scope(stored.study_uid, stored.series_uid, "1.2.3"),
        Scope("1.2.3", stored.series_uid, stored.sop_instance_uid),
    ):
        with pytest.raises(NotFound):
            node.retrieve.locate(scope)


def test_metadata_is_the_same_before_and_after_it_was_kept_and_opens_no_file_then(node, monkeypatch):
    study, series = generate_uid(), generate_uid()
    for i in range(5):
        put(node, part10(ct(study, series, InstanceNumber=i)))
    first = node.retrieve.metadata(Scope(study))
    parts = list(first.parts)
    assert [orjson.loads(part)["00200013"]["Value"] for part in parts] == [[0], [1], [2], [3], [4]]
    assert all(b'"%BASE%/studies/' in part for part in parts)

    def never(*_args):
        raise AssertionError("a file was opened")

    monkeypatch.setattr(node.store, "open", never)
    second = node.retrieve.metadata(Scope(study))
    assert list(second.parts) == parts
    assert second.etag == first.etag


def test_the_etag_changes_when_an_instance_comes_or_goes(node):
    study = generate_uid()
    put(node, part10(ct(study)))
    before = node.retrieve.metadata(Scope(study)).etag
    stored = put(node, part10(ct(study)))
    between = node.retrieve.metadata(Scope(study)).etag
    node.lifecycle.delete(Scope(study, stored.series_uid, stored.sop_instance_uid), SOURCE)
    assert len({before, between}) == 2
    assert node.retrieve.metadata(Scope(study)).etag == before


def test_the_clerk_derives_ahead_of_readers(node):
    stored = put(node, part10(ct()))
    while node.derive.catch_up():
        pass
    rows = query(
        node,
        "SELECT metadata FROM instance_derived JOIN instance ON pk = instance_pk WHERE sop_instance_uid = %s",
        stored.sop_instance_uid,
    )
    assert orjson.loads(zlib.decompress(rows[0][0]))["00080018"]["Value"] == [stored.sop_instance_uid]


def test_native_frames_are_cut_out(node):
    frames = [os.urandom(128) for _ in range(7)]
    instance = only(node, put(node, part10(ct(NumberOfFrames=7, PixelData=b"".join(frames)))))
    assert instance.number_of_frames == 7
    found = node.retrieve.frames(instance, (7, 1, 1, 4))
    assert list(found.parts) == [frames[6], frames[0], frames[0], frames[3]]
    assert (found.attributes.rows, found.attributes.columns) == (8, 8)
    with pytest.raises(NotFound):
        node.retrieve.frames(instance, (8,))


def test_one_bit_frames_begin_at_their_own_byte(node):
    bits = np.random.default_rng(1).integers(0, 2, (3, 5, 5), dtype=np.uint8)
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    more = {"Rows": 5, "Columns": 5, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "NumberOfFrames": 3}
    instance = only(node, put(node, part10(ct(PixelData=packed + bytes(len(packed) % 2), **more))))
    for number, content in enumerate(node.retrieve.frames(instance, (1, 2, 3)).parts):
        assert content == np.packbits(bits[number].reshape(-1), bitorder="little").tobytes()


@pytest.mark.parametrize("extended", [False, True])
def test_encapsulated_frames_are_joined_from_their_fragments(node, extended):
    streams = [b"\xff\xd8\xff\xe0" + os.urandom(96) + b"\xff\xd9" for _ in range(4)]
    data = ct(NumberOfFrames=4)
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    if extended:
        data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = encapsulate_extended(streams)
    else:
        data.PixelData = encapsulate(streams, fragments_per_frame=3)
    data["PixelData"].VR = "OB"
    instance = only(node, put(node, part10(data)))
    assert list(node.retrieve.frames(instance, (4, 2)).parts) == [streams[3], streams[1]]
    assert node.retrieve.frames(instance, (1,)).transfer_syntax_uid == JPEGBaseline8Bit


def test_frames_of_a_deflated_object_come_inflated(node):
    data = ct()
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    instance = only(node, put(node, part10(data)))
    assert list(node.retrieve.frames(instance, (1,)).parts) == [data.PixelData]


def test_bulk_data_is_found_by_the_path_that_metadata_names(node):
    data = ct()
    item = Dataset()
    item.add_new(0x00282000, "OB", os.urandom(4000))
    data.IconImageSequence = Sequence([item])
    stored = put(node, part10(data))
    [part] = node.retrieve.metadata(Scope(stored.study_uid)).parts
    row = orjson.loads(part)
    uri = row["00880200"]["Value"][0]["00282000"]["BulkDataURI"]
    assert uri.startswith(f"%BASE%/studies/{stored.study_uid}/")
    bulk = node.retrieve.bulk(only(node, stored), uri.partition("/bulkdata/")[2])
    assert b"".join(bulk.parts) == item[0x00282000].value
    assert bulk.size == 4000
    with pytest.raises(NotFound):
        node.retrieve.bulk(only(node, stored), "00880200/2/00282000")


def test_a_missing_file_is_an_error_and_a_finding_never_an_empty_answer(node):
    instance = only(node, put(node, part10(ct())))
    node.store.remove([instance.object_name])
    for read in (
        lambda: node.retrieve.open(instance),
        lambda: node.retrieve.frames(instance, (1,)),
        lambda: list(node.retrieve.metadata(Scope(instance.study_uid)).parts),
    ):
        with pytest.raises(Damaged):
            read()
    found = [f for f in node.findings.open() if f["object_name"] == instance.object_name]
    assert [f["kind"] for f in found] == ["missing_file"]


def test_a_cut_file_is_an_error(node, settings):
    instance = only(node, put(node, part10(ct())))
    os.truncate(settings.storage_dir / "objects" / instance.object_name, instance.size - 1)
    with pytest.raises(Damaged):
        node.retrieve.open(instance)


def test_another_node_on_the_same_servers_reads_what_this_one_stored(node, settings):
    raw = part10(ct())
    stored = put(node, raw)
    other = build(settings, component="other")
    with other.retrieve.open(only(other, stored)) as file:
        assert file.read() == raw
    other.close()
