"""What SEG and SR share: patient and study as the images have them, our equipment, derived UIDs, frozen times."""

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property

from pydicom.charset import convert_encodings
from pydicom.config import RAISE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds, validate_value

from ai_sidecar.package import Package
from ai_sidecar.ports import JobContext, derived_uid
from ai_sidecar.results.codes import PROCESSING_EQUIPMENT, coded
from ai_sidecar.volume import Layout
from pacs.domain.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

NOT_FOR_DIAGNOSIS = "not for diagnosis"
SIDECAR = "AI sidecar"
LO, SH = 64, 16

# Patient, General Study, Patient Study and Clinical Trial modules, as the images have them (PS3.3 C.7.1, C.7.2)
CARRIED = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC",
    "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID", "PatientBirthTime",
    "OtherPatientIDsSequence", "OtherPatientNames", "EthnicGroup", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "PatientSpeciesDescription", "PatientSpeciesCodeSequence",
    "StudyDescription", "IssuerOfAccessionNumberSequence", "ProcedureCodeSequence", "ReferencedStudySequence",
    "PatientAge", "PatientSize", "PatientWeight", "AdmissionID", "IssuerOfAdmissionIDSequence",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription", "LongitudinalTemporalInformationModified",
)  # fmt: skip
# the same, but present even when empty (type 2)
ALWAYS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber",
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """Where a result comes from. `datasets` are the images in the order of `layout`, without pixels."""

    package: Package
    job: JobContext
    series_uid: str
    datasets: Sequence[Dataset]
    layout: Layout

    @property
    def first(self) -> Dataset:
        return self.datasets[0]

    def uid(self, role: str) -> str:
        """The UID of one thing in the results."""
        return derived_uid(self.job.job_key, role)

    def tracking_uid(self, label: int) -> str:
        """The same for one label of one model on one series, whichever job wrote it."""
        return derived_uid(f"{self.series_uid}/{self.package.name}", f"label-{label}")

    @property
    def model_uid(self) -> str:
        """The Device UID of the model, from its digest."""
        return derived_uid(self.package.digest, "device")

    @cached_property
    def moment(self) -> datetime:
        """The frozen time, in the time zone that the images state."""
        offset = str(self.first.get("TimezoneOffsetFromUTC") or self.job.utc_offset).strip()
        try:
            minutes = int(offset[-4:-2]) * 60 + int(offset[-2:])
            return self.job.frozen_at.astimezone(timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)))
        except (ValueError, IndexError):
            return self.job.frozen_at.astimezone(timezone(timedelta()))

    @property
    def date(self) -> str:
        return self.moment.strftime("%Y%m%d")

    @property
    def time(self) -> str:
        return self.moment.strftime("%H%M%S")

    @property
    def date_time(self) -> str:
        return self.moment.strftime("%Y%m%d%H%M%S%z")

    @property
    def description(self) -> str:
        """The series description of the results."""
        model = self.package.manifest.model
        words = self.package.manifest.result.series_description or f"{model.name} {model.version}"[:40]
        return words if model.allowed_use == "clinical" else f"{words} - {NOT_FOR_DIAGNOSIS}"

    def text(self, words: str, length: int = LO) -> str:
        """Our own words, in characters that the images' character set has, no longer than their VR allows."""
        given = self.first.get("SpecificCharacterSet") or "ISO_IR 6"
        try:
            words.encode(convert_encodings(given)[0])
        except (UnicodeEncodeError, LookupError):
            words = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode()
        return words.replace("\\", "/")[:length]


def begin(origin: Origin, role: str, sop_class_uid: str, modality: str) -> Dataset:
    """A result's data set with everything but its content."""
    result = Dataset()
    _carry(origin, result)
    result.SOPClassUID, result.SOPInstanceUID = UID(sop_class_uid), UID(origin.uid(role))
    result.SeriesInstanceUID = UID(origin.uid(f"{role}-series"))
    result.Modality, result.InstanceNumber = modality, 1
    result.SeriesNumber = _series_number(origin.first, role)
    result.SeriesDescription = origin.text(origin.description)
    for kind in ("InstanceCreation", "Content", "Series"):
        setattr(result, f"{kind}Date", origin.date)
        setattr(result, f"{kind}Time", origin.time)
    _equipment(origin, result)
    return result


def _carry(origin: Origin, result: Dataset) -> None:
    source = origin.first
    result.StudyInstanceUID = source.get("StudyInstanceUID") or origin.job.study_uid
    for keyword in CARRIED:
        if source.get(keyword) and _valid(source[keyword]):
            result[keyword] = source[keyword]
    for keyword in ALWAYS:
        if keyword in source:
            result[keyword] = source[keyword]
        else:
            setattr(result, keyword, None)


def _valid(element: DataElement) -> bool:
    """Whether an optional element keeps to its VR: what a scanner got wrong is not passed on under our name."""
    values = element.value if element.VM > 1 else [element.value]
    try:
        for value in [] if element.VR == "SQ" else values:
            validate_value(element.VR, str(value), RAISE)
    except (ValueError, TypeError):
        return False
    return True


def _series_number(source: Dataset, role: str) -> int:
    """After the series it comes from, and within IS."""
    try:
        number = int(source.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        number = 0
    return number % 10_000_000 * 100 + {"seg": 91, "sr": 92}.get(role, 99)


def _equipment(origin: Origin, result: Dataset) -> None:
    job, model = origin.job, origin.package.manifest.model
    result.Manufacturer = origin.text(job.manufacturer)
    result.ManufacturerModelName = SIDECAR
    result.DeviceSerialNumber = origin.package.digest[:LO]
    result.SoftwareVersions = origin.text(job.software_version)
    result.DeviceUID = job.device_uid
    institution = origin.first.get("InstitutionName") or job.institution
    if institution:
        result.InstitutionName = origin.text(str(institution))
    result.ContributingEquipmentSequence = [
        _contributor(origin, model.vendor, model.name, model.version, origin.model_uid,
                     f"Model {model.name} {model.version}, package sha256 {origin.package.digest}"),
        _contributor(origin, job.manufacturer, SIDECAR, job.software_version, job.device_uid,
                     "Ran the model and wrote its results"),
    ]  # fmt: skip


def _contributor(origin: Origin, *words: str) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [coded(PROCESSING_EQUIPMENT)]
    item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions = (origin.text(word) for word in words[:3])
    item.DeviceUID = words[3]
    item.ContributionDateTime = origin.date_time
    item.ContributionDescription = origin.text(words[4], 1024)
    return item


def reference(instance: Dataset) -> Dataset:
    """An item that names an instance (PS3.3 10.8)."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance.SOPClassUID, instance.SOPInstanceUID
    return item


def decimal(value: float) -> str:
    """A number as DS: at most 16 characters."""
    return format_number_as_ds(float(value) + 0.0)  # no negative zero


def decimals(values: Sequence[float]) -> list[str]:
    return [decimal(value) for value in values]


def part10(dataset: Dataset, tail: bytes = b"") -> bytes:
    """The complete file, Explicit VR Little Endian; `tail` are encoded elements that come after all others."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    stream.write(tail)
    return stream.getvalue()
