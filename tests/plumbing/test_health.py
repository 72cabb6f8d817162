"""Readiness on real servers: each thing that can be wrong is named, the rest stays ok."""

import dataclasses
import os

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from pacs.errors import Unavailable
from pacs.services.health import Health


@pytest.fixture
def pool_of():
    pools = []

    def make(url):
        pools.append(ConnectionPool(url, min_size=0, max_size=2, open=True, timeout=1))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture
def health_of(settings, pool_of):
    def make(**changes):
        changed = dataclasses.replace(settings, **changes)
        return Health(changed, pool_of(changed.database_url))

    return make


def failing(report):
    return {name for name, outcome in report.checks.items() if outcome != "ok"}


def test_a_whole_node_is_ready(health_of):
    report = health_of().ready()
    assert report.ready
    assert report.as_json()["status"] == "ready"
    assert set(report.checks) == {"database", "schema", "redis", "store", "disk", "maintenance"}


def test_a_database_that_is_away_fails_its_checks_and_leaves_health_alive(health_of, tmp_path):
    health = health_of(database_url=f"postgresql:///x?host={tmp_path}")
    assert failing(health.ready()) == {"database", "schema", "maintenance"}
    assert health.live()["status"] == "healthy"


def test_an_empty_database_is_not_at_head(health_of, empty_database_url):
    report = health_of(database_url=empty_database_url).ready()
    assert "filmroom db upgrade" in report.checks["schema"]
    assert report.checks["database"] == "ok"


def test_redis_away_is_named(health_of, tmp_path):
    assert failing(health_of(redis_url=f"unix://{tmp_path}/none.sock").ready()) == {"redis"}
    assert failing(health_of(redis_url="").ready()) == {"redis"}


def test_a_disk_below_its_reserve_is_named(health_of):
    report = health_of(disk_reserve_gb=1e6).ready()
    assert failing(report) == {"disk"}
    assert "DISK_RESERVE_GB" in report.checks["disk"]


def test_a_store_that_cannot_be_written_is_named(health_of, tmp_path):
    (tmp_path / "file").touch()
    assert "store" in failing(health_of(dicom_storage_dir=str(tmp_path / "file" / "below")).ready())


def test_maintenance_is_named(health_of, database_url):
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO node_state (key, value) VALUES ('maintenance', '{\"state\": \"on\"}')")
    assert failing(health_of().ready()) == {"maintenance"}
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM node_state")


def test_checks_of_other_rooms_are_asked_and_a_broken_one_fails(settings, pool_of):
    def degraded():
        raise Unavailable("The store is degraded.")

    def broken():
        raise ZeroDivisionError

    report = Health(settings, pool_of(settings.database_url), {"fsync": degraded, "other": broken}).ready()
    assert report.checks["fsync"] == "The store is degraded."
    assert report.checks["other"] == "The check failed (ZeroDivisionError)."


def test_the_probe_leaves_nothing_in_the_store(health_of, settings):
    health_of().ready()
    assert os.listdir(settings.storage_dir / "tmp") == []
