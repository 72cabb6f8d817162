"""What the clerk measures for all: true figures while servers answer, and a plain 0 when they do not."""

import datetime
import shutil
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pacs.errors import Unavailable
from pacs.index.figures import PoolFigures
from pacs.index.pool import open_pool
from pacs.services import audit
from pacs.services.gauges import Gauges
from pacs.telemetry import Metrics
from tests.services.specimens import SOURCE, query
from tests.services.test_auditexport import certificates


def told(metrics):
    """Value by name and labels of our own."""
    return {
        (sample.name, *(v for k, v in sample.labels.items() if k not in {"component", "process"})): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def measured(node, **changes):
    metrics = Metrics("test")
    Gauges(node.pool, replace(node.settings, **changes), metrics).measure()
    return told(metrics)


def test_queues_are_counted_with_the_age_of_the_oldest(node):
    node.chain.seal()
    with node.pool.connection() as connection:
        late = audit.row(SOURCE, "read") | {"at": datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)}
        audit.record(connection, [late, audit.row(SOURCE, "read")])
    found = measured(node)
    assert found["filmroom_queue_rows", "audit"] == 2
    assert 3600 <= found["filmroom_queue_age_seconds", "audit"] < 3700
    node.chain.seal()
    found = measured(node)
    assert (found["filmroom_queue_rows", "audit"], found["filmroom_queue_age_seconds", "audit"]) == (0, 0)


def test_servers_and_disks_say_how_much_they_have_and_may(node):
    found = measured(node, disk_reserve_gb=3.0)
    [(connections,)] = query(node, "SELECT current_setting('max_connections')::int")
    assert found["filmroom_up", "database"] == found["filmroom_up", "redis"] == 1
    assert 0 < sum(v for k, v in found.items() if k[0] == "filmroom_db_connections") <= connections
    assert found["filmroom_db_connections_most",] < connections
    assert 0 < found["filmroom_redis_memory_bytes",] < found["filmroom_redis_memory_most_bytes",]
    usage = shutil.disk_usage(node.settings.home)
    assert found["filmroom_disk_size_bytes", "home"] == usage.total
    assert abs(found["filmroom_disk_free_bytes", "storage"] - usage.free) < 2**30
    assert found["filmroom_disk_reserve_bytes",] == 3 * 2**30


def test_a_finding_is_open_until_it_is_cured(node):
    with node.pool.connection() as connection:
        connection.execute(
            "INSERT INTO finding (kind, object_name, sop_instance_uid, message) VALUES ('wrong_digest', 'x', '', '')"
        )
    assert measured(node)["filmroom_findings_open", "wrong_digest"] == 1
    with node.pool.connection() as connection:
        connection.execute("UPDATE finding SET cured_at = now()")
    assert ("filmroom_findings_open", "wrong_digest") not in measured(node)


def test_days_of_certificates_are_told_and_one_that_cannot_be_read_has_none(node, tmp_path):
    certificate, *_ = certificates(tmp_path)
    found = measured(node, dicom_tls_cert=certificate, audit_syslog_cert=tmp_path / "missing.pem")
    assert 0.9 < found["filmroom_certificate_days", "dimse"] <= 1
    assert found["filmroom_certificate_days", "audit"] == 0


def test_a_server_that_is_away_is_a_zero_and_the_rest_is_measured(node, tmp_path):
    metrics = Metrics("test")
    gone = open_pool(f"postgresql:///x?host={tmp_path}", "test")
    try:
        with pytest.raises(Unavailable, match="database, redis"):
            Gauges(gone, replace(node.settings, redis_url=f"unix://{tmp_path}/none"), metrics).measure()
    finally:
        gone.close()
    found = told(metrics)
    assert (found["filmroom_up", "database"], found["filmroom_up", "redis"]) == (0, 0)
    assert found["filmroom_disk_free_bytes", "home"] > 0


def test_the_pool_says_what_is_lent(node):
    metrics = Metrics("test")
    metrics.add(PoolFigures(node.pool))
    with node.pool.connection() as connection:
        connection.execute("SELECT 1")
        found = told(metrics)
        assert found["filmroom_db_pool_connections", "used"] >= 1
    assert found["filmroom_db_pool_requests_total",] >= 1
    assert {"filmroom_db_pool_waiting", "filmroom_db_pool_wait_seconds_total"} <= {name for name, *_ in found}


def test_caches_count_hits_and_misses():
    metrics = Metrics("test")
    count = metrics.cache("frames")
    for outcome in ("made", "hit", "hit", "joined"):
        count(outcome)
    found = told(metrics)
    assert [found["filmroom_cache_requests_total", "frames", one] for one in ("hit", "joined", "made")] == [2, 1, 1]
