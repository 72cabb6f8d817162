"""THE table of indexed attributes: level, column, matching rule, whether QIDO returns it by default.

VR and tag come from pydicom's dictionary, never from here. Everything that needs to know which attributes
the index knows (header extraction, the query compiler, QIDO's and C-FIND's answers) reads this table.
"""

from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from pydicom.datadict import dictionary_VR, tag_for_keyword

from pacs.domain.levels import Level


class Rule(Enum):
    """How an attribute matches (PS3.4 C.2.2.2); each is one function in `matching`."""

    UID = auto()  # single value or list of UIDs
    TEXT = auto()  # single value, wildcards, case-sensitive
    NARRATIVE = auto()  # the same, but a backslash is a character: ST, LT, UT, UR
    EXACT = auto()  # single value, case-sensitive, no wildcards: AS, AT
    NAME = auto()  # person name: folded, component groups, wildcards
    DATE = auto()  # single value or range
    TIME = auto()
    MOMENT = auto()  # DT: single value or range
    NUMBER = auto()  # IS, DS, US: equal as numbers
    SEQUENCE = auto()  # all keys in one item


NORMAL_FORMS_KEPT = frozenset({Rule.NAME, Rule.MOMENT})


class Shown(Enum):
    """When an answer carries the attribute without being asked."""

    ALWAYS = auto()  # type R: present even when empty
    KNOWN = auto()  # type C: when it has a value
    ASKED = auto()  # only when asked by includefield or as a key


@dataclass(frozen=True)
class Attribute:
    """One row of the table. `column` is the search column of the level's table; None: it lives in `attrs` only.

    `also`: levels above that keep the value of their first object as well.
    """

    keyword: str
    level: Level
    rule: Rule
    shown: Shown
    column: str | None = None
    stored: bool = True  # False: computed by the index (counts, modalities, URLs), never read from an object
    also: tuple[Level, ...] = ()

    @cached_property
    def tag(self) -> int:
        """The tag as one number, 0xGGGGEEEE."""
        tag = tag_for_keyword(self.keyword)
        if tag is None:
            raise ValueError(f"{self.keyword} is not in the DICOM dictionary")
        return tag

    @cached_property
    def hex(self) -> str:
        """The tag as DICOM JSON writes it: eight upper-case hexadecimal digits."""
        return f"{self.tag:08X}"

    @cached_property
    def folded(self) -> bool:
        """Whether it has no column but normal forms that only this process makes: `attrs` holds those as well."""
        return self.column is None and self.rule in NORMAL_FORMS_KEPT

    @property
    def normal_key(self) -> str:
        """Where `attrs` holds the normal forms, a plain list; no tag, so that it is never shown."""
        return f"n{self.hex}"

    @cached_property
    def vr(self) -> str:
        """The value representation of pydicom's dictionary."""
        return dictionary_VR(self.tag)


_P, _T, _S, _I = Level.PATIENT, Level.STUDY, Level.SERIES, Level.INSTANCE
_A, _K, _Q = Shown.ALWAYS, Shown.KNOWN, Shown.ASKED

ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("PatientName", _P, Rule.NAME, _A, "patient_name"),
    Attribute("PatientID", _P, Rule.TEXT, _A, "patient_id"),
    Attribute("IssuerOfPatientID", _P, Rule.TEXT, _K, "issuer_of_patient_id"),
    Attribute("PatientBirthDate", _P, Rule.DATE, _A, "patient_birth_date"),
    Attribute("PatientSex", _P, Rule.TEXT, _A, "patient_sex"),
    Attribute("OtherPatientIDs", _P, Rule.TEXT, _Q),
    Attribute("OtherPatientIDsSequence", _P, Rule.SEQUENCE, _Q),
    Attribute("PatientComments", _P, Rule.NARRATIVE, _Q),
    Attribute("PatientBirthTime", _P, Rule.TIME, _Q),
    Attribute("OtherPatientNames", _P, Rule.NAME, _Q),
    Attribute("EthnicGroup", _P, Rule.TEXT, _Q),
    Attribute("PatientSpeciesDescription", _P, Rule.TEXT, _Q),
    Attribute("PatientBreedDescription", _P, Rule.TEXT, _Q),
    Attribute("ResponsiblePerson", _P, Rule.NAME, _Q),
    Attribute("PatientIdentityRemoved", _P, Rule.TEXT, _Q),
    Attribute("DeidentificationMethod", _P, Rule.TEXT, _Q),
    Attribute("QualityControlSubject", _P, Rule.TEXT, _Q),
    Attribute("ClinicalTrialSponsorName", _P, Rule.TEXT, _Q),
    Attribute("ClinicalTrialProtocolID", _P, Rule.TEXT, _Q),
    Attribute("ClinicalTrialSubjectID", _P, Rule.TEXT, _Q),
    Attribute("NumberOfPatientRelatedStudies", _P, Rule.NUMBER, _Q, "study_count", stored=False),
    Attribute("NumberOfPatientRelatedSeries", _P, Rule.NUMBER, _Q, "series_count", stored=False),
    Attribute("NumberOfPatientRelatedInstances", _P, Rule.NUMBER, _Q, "instance_count", stored=False),
    Attribute("StudyDate", _T, Rule.DATE, _A, "study_date"),
    Attribute("StudyTime", _T, Rule.TIME, _A, "study_time"),
    Attribute("AccessionNumber", _T, Rule.TEXT, _A, "accession_number"),
    Attribute("IssuerOfAccessionNumberSequence", _T, Rule.SEQUENCE, _Q),
    Attribute("ModalitiesInStudy", _T, Rule.TEXT, _A, "modalities", stored=False),
    Attribute("SOPClassesInStudy", _T, Rule.UID, _Q, "sop_classes", stored=False),
    Attribute("ReferringPhysicianName", _T, Rule.NAME, _A, "referring_physician_name"),
    Attribute("StudyInstanceUID", _T, Rule.UID, _A, "study_uid"),
    Attribute("StudyID", _T, Rule.TEXT, _A, "study_id"),
    Attribute("StudyDescription", _T, Rule.TEXT, _K, "study_description"),
    Attribute("InstitutionName", _T, Rule.TEXT, _Q, "institution_name"),
    Attribute("PatientAge", _T, Rule.EXACT, _Q),
    Attribute("PatientSize", _T, Rule.NUMBER, _Q),
    Attribute("PatientWeight", _T, Rule.NUMBER, _Q),
    Attribute("NameOfPhysiciansReadingStudy", _T, Rule.NAME, _Q, "reading_physicians_name"),
    Attribute("ProcedureCodeSequence", _T, Rule.SEQUENCE, _Q),
    Attribute("StudyStatusID", _T, Rule.TEXT, _Q),
    Attribute("ReasonForStudy", _T, Rule.TEXT, _Q),
    Attribute("AdmittingDiagnosesDescription", _T, Rule.TEXT, _Q),
    Attribute("AdmissionID", _T, Rule.TEXT, _Q),
    Attribute("Occupation", _T, Rule.TEXT, _Q),
    Attribute("AdditionalPatientHistory", _T, Rule.NARRATIVE, _Q),
    Attribute("MedicalAlerts", _T, Rule.TEXT, _Q),
    Attribute("Allergies", _T, Rule.TEXT, _Q),
    Attribute("SmokingStatus", _T, Rule.TEXT, _Q),
    Attribute("PregnancyStatus", _T, Rule.NUMBER, _Q),
    Attribute("PhysiciansOfRecord", _T, Rule.NAME, _Q),
    Attribute("ConsultingPhysicianName", _T, Rule.NAME, _Q),
    Attribute("RequestingPhysician", _T, Rule.NAME, _Q),
    Attribute("RequestingService", _T, Rule.TEXT, _Q),
    Attribute("RequestedProcedureDescription", _T, Rule.TEXT, _Q),
    Attribute("ReferencedStudySequence", _T, Rule.SEQUENCE, _Q),
    Attribute("NumberOfStudyRelatedSeries", _T, Rule.NUMBER, _A, "series_count", stored=False),
    Attribute("NumberOfStudyRelatedInstances", _T, Rule.NUMBER, _A, "instance_count", stored=False),
    Attribute("Modality", _S, Rule.TEXT, _A, "modality"),
    Attribute("SeriesInstanceUID", _S, Rule.UID, _A, "series_uid"),
    Attribute("SeriesNumber", _S, Rule.NUMBER, _A, "series_number"),
    Attribute("SeriesDescription", _S, Rule.TEXT, _K, "series_description"),
    Attribute("SeriesDate", _S, Rule.DATE, _Q, "series_date"),
    Attribute("SeriesTime", _S, Rule.TIME, _Q, "series_time"),
    Attribute("BodyPartExamined", _S, Rule.TEXT, _Q, "body_part_examined"),
    Attribute("Laterality", _S, Rule.TEXT, _Q),
    Attribute("ProtocolName", _S, Rule.TEXT, _Q, "protocol_name"),
    Attribute("Manufacturer", _S, Rule.TEXT, _Q),
    Attribute("ManufacturerModelName", _S, Rule.TEXT, _Q),
    Attribute("StationName", _S, Rule.TEXT, _Q),
    Attribute("OperatorsName", _S, Rule.NAME, _Q, "operators_name"),
    Attribute("PerformingPhysicianName", _S, Rule.NAME, _Q, "performing_physician_name"),
    Attribute("FrameOfReferenceUID", _S, Rule.UID, _Q),
    Attribute("PerformedProcedureStepStartDate", _S, Rule.DATE, _K, "performed_procedure_step_start_date"),
    Attribute("PerformedProcedureStepStartTime", _S, Rule.TIME, _K, "performed_procedure_step_start_time"),
    Attribute("RequestAttributesSequence", _S, Rule.SEQUENCE, _K),
    Attribute("SeriesDescriptionCodeSequence", _S, Rule.SEQUENCE, _Q),
    Attribute("InstitutionalDepartmentName", _S, Rule.TEXT, _Q),
    Attribute("DeviceSerialNumber", _S, Rule.TEXT, _Q),
    Attribute("SoftwareVersions", _S, Rule.TEXT, _Q),
    Attribute("PatientPosition", _S, Rule.TEXT, _Q),
    Attribute("AnatomicalOrientationType", _S, Rule.TEXT, _Q),
    Attribute("SeriesType", _S, Rule.TEXT, _Q),
    Attribute("PositionReferenceIndicator", _S, Rule.TEXT, _Q),
    Attribute("PerformedStationAETitle", _S, Rule.TEXT, _Q),
    Attribute("PerformedProcedureStepEndDate", _S, Rule.DATE, _Q),
    Attribute("PerformedProcedureStepEndTime", _S, Rule.TIME, _Q),
    Attribute("PerformedProcedureStepID", _S, Rule.TEXT, _Q),
    Attribute("PerformedProcedureStepDescription", _S, Rule.TEXT, _Q),
    Attribute("PerformedProtocolCodeSequence", _S, Rule.SEQUENCE, _Q),
    Attribute("CommentsOnThePerformedProcedureStep", _S, Rule.NARRATIVE, _Q),
    Attribute("ReferencedPerformedProcedureStepSequence", _S, Rule.SEQUENCE, _Q),
    Attribute("PresentationIntentType", _S, Rule.TEXT, _Q),
    Attribute("TreatmentSessionUID", _S, Rule.UID, _Q),
    Attribute("NumberOfSeriesRelatedInstances", _S, Rule.NUMBER, _A, "instance_count", stored=False),
    Attribute("SOPClassUID", _I, Rule.UID, _A, "sop_class_uid"),
    Attribute("SOPInstanceUID", _I, Rule.UID, _A, "sop_instance_uid"),
    Attribute("InstanceNumber", _I, Rule.NUMBER, _A, "instance_number"),
    Attribute("ContentDate", _I, Rule.DATE, _Q, "content_date"),
    Attribute("ContentTime", _I, Rule.TIME, _Q, "content_time"),
    Attribute("AcquisitionDate", _I, Rule.DATE, _Q),
    Attribute("AcquisitionTime", _I, Rule.TIME, _Q),
    Attribute("ImageType", _I, Rule.TEXT, _Q),
    Attribute("Rows", _I, Rule.NUMBER, _K),
    Attribute("Columns", _I, Rule.NUMBER, _K),
    Attribute("BitsAllocated", _I, Rule.NUMBER, _K),
    Attribute("NumberOfFrames", _I, Rule.NUMBER, _K),
    Attribute("SliceThickness", _I, Rule.NUMBER, _Q),
    Attribute("ImagePositionPatient", _I, Rule.NUMBER, _Q),
    Attribute("ImageOrientationPatient", _I, Rule.NUMBER, _Q),
    Attribute("PixelSpacing", _I, Rule.NUMBER, _Q),
    Attribute("ConceptNameCodeSequence", _I, Rule.SEQUENCE, _Q),
    Attribute("ReferencedSeriesSequence", _I, Rule.SEQUENCE, _Q),
    Attribute("CompletionFlag", _I, Rule.TEXT, _Q),
    Attribute("VerificationFlag", _I, Rule.TEXT, _Q),
    Attribute("ContentLabel", _I, Rule.TEXT, _Q),
    # asked for everywhere, about the instance as kept here
    Attribute("SpecificCharacterSet", _I, Rule.TEXT, _Q),
    Attribute("TimezoneOffsetFromUTC", _I, Rule.TEXT, _K, also=(_T, _S)),
    Attribute("AvailableTransferSyntaxUID", _I, Rule.UID, _Q, "transfer_syntax_uid", stored=False),
)

# how keys of other attributes match, those inside sequences among them, by value representation (PS3.4 C.2.2.2)
RULES_BY_VR: dict[str, Rule] = {
    "UI": Rule.UID,
    "PN": Rule.NAME,
    "DA": Rule.DATE,
    "TM": Rule.TIME,
    "DT": Rule.MOMENT,
    "SQ": Rule.SEQUENCE,
    **dict.fromkeys(("AS", "AT"), Rule.EXACT),
    **dict.fromkeys(("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"), Rule.NUMBER),
    **dict.fromkeys(("AE", "CS", "LO", "SH", "UC"), Rule.TEXT),
    **dict.fromkeys(("LT", "ST", "UR", "UT"), Rule.NARRATIVE),
}

BY_TAG: dict[int, Attribute] = {a.tag: a for a in ATTRIBUTES}
BY_KEYWORD: dict[str, Attribute] = {a.keyword: a for a in ATTRIBUTES}
STORED: tuple[Attribute, ...] = tuple(a for a in ATTRIBUTES if a.stored)


def at_level(level: Level) -> tuple[Attribute, ...]:
    """The attributes that live at exactly this level."""
    return tuple(a for a in ATTRIBUTES if a.level == level)


def rule_of(tag: int) -> Rule | None:
    """How the attribute matches, by the table or by the dictionary's VR; None for binary, private and unknown ones."""
    if tag in BY_TAG:
        return BY_TAG[tag].rule
    try:
        return RULES_BY_VR.get(dictionary_VR(tag))
    except KeyError:
        return None
