"""A whole node whose clerk is killed while it forwards: everything arrives, and next to nothing twice."""

import time
from collections import Counter
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from tests.dicomweb.objects import CT, ct, part10
from tests.dimse.receiver import EXPLICIT, receiving
from tests.dimse.sender import Sender
from tests.running import RunningNode

pytestmark = pytest.mark.slow
COUNT = 60


def test_a_killed_clerk_forwards_the_rest_and_doubles_one_at_most(short_folder: Path) -> None:
    config = short_folder / "forwarding"
    config.mkdir()
    study = generate_uid()
    objects = [ct(study=study, InstanceNumber=number) for number in range(COUNT)]
    with receiving("READING") as reading:
        reading.answer = lambda one: time.sleep(0.05) or 0
        (config / "peers.toml").write_text(f'[peers.READING]\nhost = "127.0.0.1"\nport = {reading.port}\n')
        (config / "rules.toml").write_text('[rules.all]\ndestination = "READING"\nmatch = { Modality = "CT" }\n')
        files = {"DICOM_PEERS": str(config / "peers.toml"), "DICOM_RULES": str(config / "rules.toml")}
        node = RunningNode(short_folder / "forwarder", files).start()
        try:
            with Sender(("127.0.0.1", node.dicom_port), [(CT, [EXPLICIT])]) as sender:
                for one in objects:
                    data = part10(one)
                    length = int.from_bytes(data[140:144], "little")
                    assert sender.store(CT, one.SOPInstanceUID, data[144 + length :]).status == 0
            reading.wait(lambda: len(reading.came) >= COUNT // 4, 60)
            node.child("serve clerk").kill()
            wanted = {one.SOPInstanceUID for one in objects}
            reading.wait(lambda: {one.uid for one in reading.came} == wanted, 150)
            time.sleep(3)
        finally:
            node.stop()
    times = Counter(one.uid for one in reading.came)
    assert sum(times.values()) <= COUNT + 1, "only the object under way at the kill may have gone twice"
