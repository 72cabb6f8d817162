"""What the pool of connections says of itself."""

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from psycopg_pool import ConnectionPool

MILLI = 1000


class PoolFigures(Collector):
    """Connections in use and idle, callers that wait, and how long they had to."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool

    def describe(self) -> list[Metric]:
        """Nothing: the pool is not asked before somebody wants to know."""
        return []

    def collect(self) -> Iterator[Metric]:
        said = self._pool.get_stats()
        size, idle = said.get("pool_size", 0), said.get("pool_available", 0)
        held = GaugeMetricFamily("filmroom_db_pool_connections", "Connections of the pool by use", labels=["state"])
        held.add_metric(["used"], size - idle)
        held.add_metric(["idle"], idle)
        yield held
        waiting = said.get("requests_waiting", 0)
        yield GaugeMetricFamily("filmroom_db_pool_waiting", "Callers that wait for a connection", waiting)
        for name, text, key, scale in (
            ("filmroom_db_pool_requests", "Connections asked for", "requests_num", 1),
            ("filmroom_db_pool_waits", "Of these, those that had to wait", "requests_queued", 1),
            ("filmroom_db_pool_wait_seconds", "Seconds that they waited", "requests_wait_ms", MILLI),
            ("filmroom_db_pool_errors", "Of these, those that got none in time", "requests_errors", 1),
        ):
            yield CounterMetricFamily(name, text, said.get(key, 0) / scale)
