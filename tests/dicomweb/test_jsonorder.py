"""DICOM JSON is written in the standard's order whatever order it was found in."""

import json

from dicomweb.jsonorder import in_order


def test_tags_ascend_and_vr_comes_first_at_every_depth():
    item = {"00401001": {"Value": ["P"], "vr": "SH"}, "00400009": {"Value": ["S"], "vr": "SH"}}
    found = {"00400275": {"Value": [item], "vr": "SQ"}, "00080060": {"Value": ["CT"], "vr": "CS"}}
    assert json.dumps(in_order(found)) == (
        '{"00080060": {"vr": "CS", "Value": ["CT"]}, "00400275": {"vr": "SQ", "Value": ['
        '{"00400009": {"vr": "SH", "Value": ["S"]}, "00401001": {"vr": "SH", "Value": ["P"]}}]}}'
    )
