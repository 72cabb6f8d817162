"""Import: what it finds, what it skips and why, and that a second run does nothing twice."""

import zipfile

import pytest

from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.levels import Level
from pacs.domain.query import Condition, Query
from pacs.services import importer
from pacs.services.phantom import ChestStudy, files


@pytest.fixture
def study(request):
    """A study of its own for each test: the archive is shared by the module."""
    return ChestStudy(request.node.name, "IMP-1", "Import^Test", slices=5, size=32)


@pytest.fixture
def folder(tmp_path, study):
    """Three slices in a folder, two in a zip archive, and things that are no DICOM."""
    slices = list(files(study))
    root = tmp_path / "in"
    (root / "deep").mkdir(parents=True)
    for index, data in enumerate(slices[:3]):
        (root / "deep" / f"{index}").write_bytes(data)
    with zipfile.ZipFile(root / "rest.zip", "w") as archive:
        for index, data in enumerate(slices[3:]):
            archive.writestr(f"a/{index}.dcm", data)
    (root / "notes.txt").write_text("nothing to see")
    (root / "broken.dcm").write_bytes(slices[0][:700])
    return root


def imported(node, root, tmp_path, **options):
    journal = importer.Journal(tmp_path / "journal", [root])
    outcomes = list(importer.run(node.ingest, importer.find([root]), journal, **options))
    journal.close()
    return {kind: dict(reasons) for kind, reasons in importer.summary(outcomes).items()}


def test_import_stores_files_and_zip_members_and_names_what_it_did_not(node, folder, tmp_path, study):
    assert imported(node, folder, tmp_path) == {
        "stored": {"": 5},
        "skipped": {"not DICOM": 1},
        "refused": {"unreadable": 1},
    }
    of_study = Condition((BY_KEYWORD["StudyInstanceUID"].tag,), (study.study_uid,))
    rows = node.search.find(Query(Level.INSTANCE, (of_study,))).rows
    assert {row["00080018"]["Value"][0] for row in rows} == {study.uid("instance", i) for i in range(5)}


def test_second_run_resumes_and_third_stores_nothing_twice(node, folder, tmp_path):
    imported(node, folder, tmp_path)
    assert imported(node, folder, tmp_path)["done"] == {"imported by an earlier run": 5}
    assert imported(node, folder, tmp_path, again=True)["known"] == {"": 5}


def test_path_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(importer.find([tmp_path / "absent"]))


def test_dicomdir_stands_for_its_folder(tmp_path):
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "IM0001").write_bytes(b"x")
    assert [c.path.name for c in importer.find([tmp_path / "DICOMDIR"])] == ["DICOMDIR", "IM0001"]


def test_damaged_zip_is_looked_at_as_a_file(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 not really")
    assert [c.member for c in importer.find([tmp_path])] == [""]
