"""The local adapter on a real node: facts of a study, exact inputs of a job, results through the one door."""

import dataclasses
import hashlib
import io

import pydicom
import pytest
from pydicom.data import get_testdata_file

from ai_sidecar.local import Local
from ai_sidecar.ports import ResultFile, RunFailed
from pacs.domain.events import Source
from pacs.domain.jobs import Lease
from pacs.domain.levels import Scope
from pacs.errors import NotFound
from tests.jobbooks import uid

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture(scope="module")
def local(node):
    return Local(node)


def written(dataset):
    buffer = io.BytesIO()
    dataset.preamble = bytes(128)
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def ct(study_uid, series_uid, number):
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = study_uid, series_uid, uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber, dataset.ImagePositionPatient = str(number), [0, 0, 2.5 * number]
    return dataset


def put(node, content):
    incoming = node.ingest.begin(Source("stow", "test"))
    incoming.write(content)
    return node.ingest.store(incoming)


@pytest.fixture(scope="module")
def series(node):
    """A stored series of three slices: its UIDs and the bytes of each by SOP Instance UID."""
    study_uid, series_uid = uid(), uid()
    files = {}
    for number in range(3):
        dataset = ct(study_uid, series_uid, number)
        files[str(dataset.SOPInstanceUID)] = written(dataset)
        put(node, files[str(dataset.SOPInstanceUID)])
    return study_uid, series_uid, files


@pytest.fixture
def lease(local, series):
    study_uid, series_uid, _ = series
    facts = next(facts for facts in local.facts(study_uid) if facts.series_uid == series_uid)
    inputs = tuple(
        {"sop_instance_uid": one.sop_instance_uid, "data_sha256": one.data_sha256} for one in facts.instances
    )
    values = dict.fromkeys(Lease.__dataclass_fields__, "")
    return Lease(**values | {"study_uid": study_uid, "series_uids": (series_uid,), "inputs": inputs, "model": "lungs"})


def test_facts_hold_what_selection_looks_at(local, series):
    study_uid, series_uid, files = series
    (facts,) = local.facts(study_uid)
    assert facts.series_uid == series_uid
    assert {one.sop_instance_uid for one in facts.instances} == set(files)
    assert sorted(one.attributes["ImagePositionPatient"][2] for one in facts.instances) == [0, 2.5, 5.0]
    assert all(one.sop_class_uid == CT and one.attributes["Rows"] == (128,) for one in facts.instances)


def test_an_unknown_study_has_no_facts(local):
    with pytest.raises(NotFound):
        local.facts(uid())


def test_inputs_are_the_stored_bytes(local, series, lease):
    _, series_uid, files = series
    source = local.source(lease)
    assert source.series_uid == series_uid
    assert {one.sop_instance_uid: one.read() for one in source.instances} == files


def test_an_input_that_changed_or_went_ends_the_job(local, lease):
    changed = dataclasses.replace(lease, inputs=({**lease.inputs[0], "data_sha256": "0" * 64},))
    with pytest.raises(RunFailed) as failure:
        local.source(changed)
    assert (failure.value.code, failure.value.permanent) == ("input_changed", True)
    gone = dataclasses.replace(lease, inputs=({**lease.inputs[0], "sop_instance_uid": uid()},))
    with pytest.raises(RunFailed) as failure:
        local.source(gone)
    assert failure.value.code == "input_gone"
    with pytest.raises(RunFailed):
        local.source(dataclasses.replace(lease, study_uid=uid()))


def result_of(lease, content=None):
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = lease.study_uid, uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = content or uid()
    names = (str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID))
    return ResultFile("seg", *names, written(dataset)), dataset


def test_a_result_stored_twice_is_there_once(local, node, lease):
    made, _ = result_of(lease)
    assert local.store(lease, made) == local.store(lease, made)
    (stored,) = node.retrieve.locate(Scope(lease.study_uid, made.series_uid))
    with node.retrieve.open(stored) as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(made.content).digest()


def test_other_bytes_under_the_same_name_end_the_job(local, lease):
    made, dataset = result_of(lease)
    local.store(lease, made)
    dataset.SliceThickness = "9"
    with pytest.raises(RunFailed) as failure:
        local.store(lease, dataclasses.replace(made, content=written(dataset)))
    assert (failure.value.code, failure.value.permanent) == ("results_differ", True)


def test_a_result_that_is_no_object_ends_the_job(local, lease):
    made, _ = result_of(lease)
    with pytest.raises(RunFailed) as failure:
        local.store(lease, dataclasses.replace(made, content=b"not DICOM"))
    assert failure.value.code == "result_refused"
