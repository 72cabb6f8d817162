"""What tests of AI jobs share: studies made by hand in the index, decisions, and a guard on the moves of every job."""

import uuid
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pacs.domain.jobs import MOVES, Decision, Work

GUARD = """
CREATE TABLE IF NOT EXISTS allowed_move (old text, new text, PRIMARY KEY (old, new));
CREATE OR REPLACE FUNCTION check_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF old.state <> new.state AND NOT EXISTS (SELECT FROM allowed_move m WHERE m.old = old.state AND m.new = new.state)
    THEN RAISE EXCEPTION 'job % moved from % to %', old.id, old.state, new.state; END IF;
    RETURN new;
END $$;
CREATE OR REPLACE TRIGGER guard BEFORE UPDATE ON ai_job FOR EACH ROW
    WHEN (old.job_key NOT LIKE 'decision:%') EXECUTE FUNCTION check_move();
"""


def guard_moves(url: str) -> None:
    """Let the database refuse every move of a job that the table of moves does not allow."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(GUARD)  # type: ignore[arg-type]
        pairs = [(old, new) for old, targets in MOVES.items() for new in targets]
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO allowed_move VALUES (%s, %s) ON CONFLICT DO NOTHING", pairs)


def uid() -> str:
    return f"2.25.{uuid.uuid4().int}"


class Archive:
    """Studies, series and instances as rows, without files."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(statement, values)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []

    def study(self, *, quiet: float = 0.0, originals: int = 1) -> str:
        """A study whose last original arrived `quiet` seconds ago; the outbox tells of it."""
        study_uid = uid()
        patient = self.sql(
            "INSERT INTO patient (identity, patient_id, issuer_of_patient_id, patient_name, patient_birth_date,"
            " patient_sex, attrs) VALUES (%s, '', '', '', '', '', '{}') RETURNING pk",
            study_uid,
        )[0][0]
        self.sql(
            "INSERT INTO study (patient_pk, study_uid, patient_id, issuer_of_patient_id, patient_name,"
            " patient_birth_date, patient_sex, study_date, study_time, accession_number, study_id,"
            " referring_physician_name, study_description, institution_name, attrs)"
            " VALUES (%s, %s, '', '', '', '', '', '', '', '', '', '', '', '', '{}')",
            patient,
            study_uid,
        )
        for _ in range(originals):
            self.original(study_uid, quiet=quiet)
        return study_uid

    def original(self, study_uid: str, *, quiet: float = 0.0) -> None:
        """One more original of the study, as a store commits it."""
        (seq,) = self.sql(
            "UPDATE study SET change_seq = change_seq + 1, changed_at = now() - %s * interval '1 second'"
            " WHERE study_uid = %s RETURNING change_seq",
            quiet,
            study_uid,
        )[0]
        payload = {"study_uid": study_uid, "series_uid": uid(), "change_seq": seq}
        self.sql("INSERT INTO outbox (topic, payload) VALUES ('stored', %s)", Jsonb(payload))

    def instance(self, study_uid: str, sop_instance_uid: str) -> None:
        """A stored object in a series of its own."""
        self.sql(
            "WITH s AS (SELECT pk FROM study WHERE study_uid = %s), r AS (INSERT INTO series (study_pk, series_uid,"
            " modality, series_number, series_description, series_date, series_time, body_part_examined, protocol_name,"
            " performed_procedure_step_start_date, performed_procedure_step_start_time, attrs)"
            " SELECT pk, %s, 'SEG', '', '', '', '', '', '', '', '', '{}' FROM s RETURNING pk, study_pk)"
            " INSERT INTO instance (series_pk, study_pk, sop_instance_uid, sop_class_uid, transfer_syntax_uid,"
            " instance_number, content_date, content_time, number_of_frames, attrs, object_name, size, data_offset,"
            " sha256, data_sha256, original, door, peer)"
            " SELECT pk, study_pk, %s, '', '', '', '', '', 0, '{}', %s, 1, 0, '', '', false, 'ai', '' FROM r"
            " ON CONFLICT DO NOTHING",
            study_uid,
            uid(),
            sop_instance_uid,
            uid(),
        )

    def hidden(self, sop_instance_uid: str) -> bool:
        return bool(self.sql("SELECT hidden FROM instance WHERE sop_instance_uid = %s", sop_instance_uid)[0][0])

    def delete_study(self, study_uid: str) -> None:
        for table in ("instance", "series"):
            self.sql(f"DELETE FROM {table} WHERE study_pk = (SELECT pk FROM study WHERE study_uid = %s)", study_uid)
        self.sql("DELETE FROM study WHERE study_uid = %s", study_uid)

    def change_seq(self, study_uid: str) -> int:
        return int(self.sql("SELECT change_seq FROM study WHERE study_uid = %s", study_uid)[0][0])

    def states(self, study_uid: str) -> list[str]:
        rows = self.sql("SELECT state FROM ai_job WHERE study_uid = %s ORDER BY id", study_uid)
        return [state for (state,) in rows]

    def work(self, study_uid: str, **given: Any) -> Work:
        return Work(study_uid, self.change_seq(study_uid), **{"final": False, **given})


def to_run(job_key: str | None = None, **given: Any) -> Decision:
    """A decision to run a model on a series."""
    values = {"model": "lungs", "version": "1.0.0", "digest": "d1", "series_uids": ("1.2.3",), "max_attempts": 3}
    return Decision(**{**values, "job_key": job_key or uid(), "inputs": [{"sop_instance_uid": "1.2.3.4"}], **given})


def not_to_run(reason: str = "no_series", message: str = "No series suits the model.", **given: Any) -> Decision:
    """A decision not to run it, with its reason."""
    values = {"model": "lungs", "version": "1.0.0", "digest": "d1", "reason": reason, "message": message}
    return Decision(**{**values, **given})
