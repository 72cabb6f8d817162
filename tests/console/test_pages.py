"""The console's pages show what is stored, as text whatever it is, and teach on an empty node."""

import re

import pytest
from starlette.testclient import TestClient

from dicomweb.app import build
from pacs.domain.events import Source
from pacs.services.phantom import ChestStudy, files

HOSTILE = "<script>alert(1)</script>^Öz=山田^太郎"


@pytest.fixture
def client(node):
    """A browser on loopback."""
    return TestClient(build(node), base_url="http://127.0.0.1")


@pytest.fixture
def stored(node):
    """Two studies; the first one's patient has a hostile name."""
    studies = [
        ChestStudy("c1", "C-1", HOSTILE, slices=2, size=32, accession="ACC-17"),
        ChestStudy("c2", "C-2", "Quiet^Person", slices=3, size=32, description="Thorax"),
    ]
    for study in studies:
        for data in files(study):
            incoming = node.ingest.begin(Source("stow", "tester", ""))
            incoming.write(data)
            node.ingest.store(incoming)
    return studies


def test_fresh_node_says_how_to_send_a_study(client, node):
    page = client.get("/console/").text
    assert node.settings.dicom_ae_title in page
    assert "storescu" in page
    assert "curl" in page


def test_study_list_shows_names_as_text(client, stored):
    page = client.get("/console/").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;, Öz · 山田, 太郎" in page
    assert "Quiet, Person" in page


@pytest.mark.parametrize(("wanted", "found"), [("quiet", "c2"), ("ACC-1", "c1"), ("Thorax", "c2"), ("C-1", "c1")])
def test_search_looks_at_name_id_accession_and_description(client, stored, wanted, found):
    page = client.get("/console/", params={"q": wanted}).text
    links = re.findall(r"/console/studies/([0-9.]+)", page)
    assert links == [{"c1": stored[0], "c2": stored[1]}[found].study_uid]


def test_study_page_shows_series_and_says_that_no_model_ran(client, stored):
    page = client.get(f"/console/studies/{stored[1].study_uid}").text
    assert stored[1].uid("series") in page
    assert "No model has looked" in page


def test_unknown_study_and_a_text_that_is_no_uid_answer_404(client):
    assert client.get("/console/studies/1.2.3").status_code == 404
    assert client.get("/console/studies/<x>").status_code == 404


def test_pages_have_no_inline_script_and_no_foreign_host(client, stored):
    page = client.get("/console/").text
    assert not re.search(r"<script(?![^>]*src=)", page)
    assert not re.search(r"(?:src|href)=\"https?:", page)


def test_static_files_are_served(client):
    assert client.get("/console/static/console.css").status_code == 200


def test_series_of_images_have_thumbnails_that_can_be_fetched(client, stored):
    page = client.get(f"/console/studies/{stored[1].study_uid}").text
    (source,) = re.findall(r'<img src="(/dicom-web[^"]+)"', page)
    picture = client.get(source)
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")
