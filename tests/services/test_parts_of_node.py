"""The node's parts are built when asked for, once."""

import threading

from pacs.node import build


def test_many_threads_that_ask_at_once_get_the_same_part(settings):
    for name in ("ingest", "retrieve", "metrics"):
        node = build(settings, component="test")
        gate, found = threading.Barrier(8), []

        def ask(node=node, name=name, gate=gate, found=found):
            gate.wait()
            found.append(getattr(node, name))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(part) for part in found}) == 1
        node.close()
        node.close()


def test_nothing_is_opened_before_it_is_used(settings):
    node = build(settings, component="test")
    assert not {"pool", "ingest", "store"} & set(node.__dict__)
    node.close()
