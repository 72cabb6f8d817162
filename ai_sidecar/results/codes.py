"""The coded concepts of our results, and how codes and colours are written."""

from collections.abc import Mapping, Sequence

from pydicom.dataset import Dataset

from ai_sidecar.tables import Code


def dcm(value: str, meaning: str) -> Code:
    """A code of PS3.16 Annex D."""
    return Code(value, "DCM", meaning)


def sct(value: str, meaning: str) -> Code:
    """A SNOMED CT code."""
    return Code(value, "SCT", meaning)


def ucum(value: str, meaning: str) -> Code:
    """A unit of measurement."""
    return Code(value, "UCUM", meaning)


# PS3.16 TID 1500 and what it includes
REPORT = dcm("126000", "Imaging Measurement Report")
LANGUAGE = dcm("121049", "Language of Content Item and Descendants")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
OBSERVER_TYPE, DEVICE = dcm("121005", "Observer Type"), dcm("121007", "Device")
DEVICE_UID = dcm("121012", "Device Observer UID")
DEVICE_NAME = dcm("121013", "Device Observer Name")
DEVICE_MANUFACTURER = dcm("121014", "Device Observer Manufacturer")
DEVICE_MODEL = dcm("121015", "Device Observer Model Name")
DEVICE_SERIAL = dcm("121016", "Device Observer Serial Number")
PROCEDURE_REPORTED = dcm("121058", "Procedure reported")
MEASUREMENTS = dcm("126010", "Imaging Measurements")
EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
GROUP = dcm("125007", "Measurement Group")
TRACKING_ID = dcm("112039", "Tracking Identifier")
TRACKING_UID = dcm("112040", "Tracking Unique Identifier")
FINDING_CATEGORY = sct("276214006", "Finding category")
FINDING, FINDING_SITE = dcm("121071", "Finding"), sct("363698007", "Finding Site")
LATERALITY = sct("272741003", "Laterality")
REFERENCED_SEGMENT = dcm("121191", "Referenced Segment")
SOURCE_SERIES = dcm("121232", "Source series for segmentation")
DERIVATION = dcm("121401", "Derivation")
ALGORITHM_NAME, ALGORITHM_VERSION = dcm("111001", "Algorithm Name"), dcm("111003", "Algorithm Version")
COMMENT = dcm("121106", "Comment")
VOLUME_SURFACE = dcm("121231", "Volume Surface")
CERTAINTY = dcm("111012", "Certainty of Finding")
VOLUME = sct("118565006", "Volume")
MILLILITRE, PERCENT = ucum("mL", "milliliter"), ucum("%", "Percent")
STATISTICS: Mapping[str, Code] = {
    "mean": sct("373098007", "Mean"),
    "std": sct("386136009", "Standard Deviation"),
    "min": sct("255605001", "Minimum"),
    "max": sct("56851009", "Maximum"),
}
# modality -> what its values measure, and in which unit
QUANTITIES: Mapping[str, tuple[Code, Code]] = {
    "CT": (dcm("112031", "Attenuation Coefficient"), ucum("[hnsf'U]", "Hounsfield unit")),
    "MR": (dcm("110852", "MR signal intensity"), ucum("1", "no units")),
}
PIXEL_VALUE = (Code("PIXELVALUE", "99FILMROOM", "Pixel value"), ucum("1", "no units"))
# modality -> what was done, where the images do not say (CID 100 is a baseline group)
PROCEDURES: Mapping[str, Code] = {
    "CT": sct("77477000", "Computed tomography"),
    "MR": sct("113091000", "Magnetic resonance imaging"),
    "PT": sct("82918005", "Positron emission tomography"),
    "CR": sct("168537006", "Plain radiography"),
    "DX": sct("168537006", "Plain radiography"),
    "US": sct("16310003", "Ultrasonography"),
}
IMAGING = sct("363679005", "Imaging")

# PS3.3 C.8.20 and functional groups
SEGMENTATION = dcm("113076", "Segmentation")
SOURCE_IMAGE = dcm("121322", "Source image for image processing operation")
ARTIFICIAL_INTELLIGENCE = dcm("123109", "Artificial Intelligence")
BACKGROUND = dcm("125040", "Background")
PROCESSING_EQUIPMENT = dcm("109102", "Processing Equipment")


def coded(code: Code) -> Dataset:
    """One item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def cielab(colour: Sequence[int]) -> list[int]:
    """An sRGB colour (0 to 255) as CIELab with D50 white, scaled to 16 bits (PS3.3 C.10.7.1.1)."""
    linear = [_linear(value / 255) for value in colour]
    white = (0.9642, 1.0, 0.8249)
    rows = ((0.4360747, 0.3850649, 0.1430804), (0.2225045, 0.7168786, 0.0606169), (0.0139322, 0.0971045, 0.7141733))
    x, y, z = (
        _root(sum(m * v for m, v in zip(row, linear, strict=True)) / w) for row, w in zip(rows, white, strict=True)
    )
    lightness, a, b = 116 * y - 16, 500 * (x - y), 200 * (y - z)
    scaled = (lightness * 65535 / 100, (a + 128) * 257, (b + 128) * 257)
    return [min(65535, max(0, round(value))) for value in scaled]


def _linear(value: float) -> float:
    return float(((value + 0.055) / 1.055) ** 2.4) if value > 0.04045 else value / 12.92


def _root(value: float) -> float:
    return float(value ** (1 / 3)) if value > 216 / 24389 else (24389 / 27 * value + 16) / 116
