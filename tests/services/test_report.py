"""Reports are read as people read them: finding, site with its side, quantity, value, unit."""

from pydicom.dataset import Dataset

from pacs.services.report import Measurement, read


def code(value, scheme, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def content(value_type, name, value=None, children=()):
    item = Dataset()
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [code(*name)]
    if value_type == "CODE":
        item.ConceptCodeSequence = [code(*value)]
    if value_type == "NUM":
        measured = Dataset()
        measured.NumericValue = value[0]
        measured.MeasurementUnitsCodeSequence = [code(*value[1])]
        item.MeasuredValueSequence = [measured]
    if children:
        item.ContentSequence = list(children)
    return item


def test_measurements_of_a_group_carry_finding_site_and_side():
    side = content("CODE", ("272741003", "SCT", "Laterality"), ("7771000", "SCT", "Left"))
    group = content(
        "CONTAINER",
        ("125007", "DCM", "Measurement Group"),
        children=[
            content("CODE", ("276214006", "SCT", "Finding category"), ("91723000", "SCT", "Anatomical Structure")),
            content("CODE", ("121071", "DCM", "Finding"), ("39607008", "SCT", "Lung")),
            content("CODE", ("363698007", "SCT", "Finding Site"), ("39607008", "SCT", "Lung"), [side]),
            content("NUM", ("118565006", "SCT", "Volume"), ("2400.5", ("mL", "UCUM", "milliliter"))),
        ],
    )
    report = content("CONTAINER", ("126000", "DCM", "Imaging Measurement Report"))
    report.ContentSequence = [
        content("CONTAINER", ("126010", "DCM", "Imaging Measurements"), children=[group]),
    ]
    assert read(report) == [Measurement("Lung", "Left Lung", "Volume", "2400.5", "mL")]


def test_report_without_groups_has_no_measurements():
    assert read(content("CONTAINER", ("126000", "DCM", "Imaging Measurement Report"))) == []
