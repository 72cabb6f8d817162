"""A whole node in its own processes, seen from outside."""

import shutil
import socket
import subprocess

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pacs.cli.greeting import greet
from pacs.embedded.connect import connected
from pacs.settings import Settings


def test_a_node_is_healthy_ready_and_measured(running_node):
    assert httpx.get(f"{running_node.http_url}/health").json()["status"] == "healthy"
    ready = httpx.get(f"{running_node.http_url}/ready")
    assert ready.status_code == 200
    assert set(ready.json()["checks"].values()) == {"ok"}

    def told():
        text = httpx.get(f"{running_node.http_url}/metrics").text
        families = text_string_to_metric_families(text)
        return {sample.labels.get("component") for family in families for sample in family.samples}

    running_node.wait(lambda: told() >= {"web", "dimse", "clerk"})


def test_commands_join_the_running_node(running_node):
    settings = Settings(filmroom_home=running_node.home)
    with connected(settings, start=False) as joined:
        assert joined.http_port == running_node.settings.http_port
        assert joined.database_url == running_node.settings.database_url


def test_the_key_and_the_folders_are_the_owners_only(running_node):
    home = running_node.home
    assert (home / "secret_key").stat().st_mode & 0o077 == 0
    assert (home / "postgres").stat().st_mode & 0o077 == 0
    assert (home / "run").stat().st_mode & 0o077 == 0
    assert home.stat().st_mode & 0o066 == 0


def test_servers_listen_on_no_network(running_node):
    import psutil

    for words in ("postgres", "valkey-server"):
        child = running_node.child(words)
        assert not [c for c in child.net_connections() if c.family != socket.AF_UNIX]
    for words in ("serve web", "serve dimse"):
        listening = [c for c in running_node.child(words).net_connections() if c.status == psutil.CONN_LISTEN]
        assert listening
        assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("echoscu"), reason="DCMTK is not installed")
def test_dcmtk_echoes(running_node):
    line = ["echoscu", "-aec", "FILMROOM", "127.0.0.1", str(running_node.dicom_port)]
    subprocess.run(line, check=True, timeout=30)


def test_the_greeting_holds_the_lines_that_send_a_first_study():
    text = greet(Settings(http_host="0.0.0.0", auth_mode="open", dicom_port=104))
    assert "storescu -aec FILMROOM +sd +r 127.0.0.1 104 FOLDER" in text
    assert "http://127.0.0.1:8000/dicom-web/studies" in text
    assert "everybody who reaches 0.0.0.0" in text
    assert "http://[::1]:8000/console/" in greet(Settings(http_host="::1"))
