-- Search columns hold text normalised for matching (pacs/domain/matching.py): several values joined by a backslash,
-- dates YYYYMMDD, times HHMMSS.FFFFFF, numbers canonical, person names folded with one value per component group.
-- `attrs` holds the level's attributes as they are answered, in DICOM JSON. Nothing here is null: empty means empty.

CREATE TABLE patient (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity            text COLLATE "C" NOT NULL UNIQUE,  -- ID and issuer; the study's UID where there is no ID
    patient_id          text COLLATE "C" NOT NULL,
    issuer_of_patient_id text COLLATE "C" NOT NULL,
    patient_name        text COLLATE "C" NOT NULL,
    patient_birth_date  text COLLATE "C" NOT NULL,
    patient_sex         text COLLATE "C" NOT NULL,
    attrs               jsonb NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX patient_by_id ON patient (patient_id);
CREATE INDEX patient_by_name ON patient (patient_name, pk);
CREATE INDEX patient_many_patient_id ON patient (pk) WHERE position('\' in patient_id) > 0;
CREATE INDEX patient_many_patient_name ON patient (pk) WHERE position('\' in patient_name) > 0;

CREATE TABLE study (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    patient_pk          bigint NOT NULL REFERENCES patient,
    study_uid           text COLLATE "C" NOT NULL UNIQUE,
    -- the patient as this study's first object names it, so that a study list needs no join
    patient_id          text COLLATE "C" NOT NULL,
    issuer_of_patient_id text COLLATE "C" NOT NULL,
    patient_name        text COLLATE "C" NOT NULL,
    patient_birth_date  text COLLATE "C" NOT NULL,
    patient_sex         text COLLATE "C" NOT NULL,
    study_date          text COLLATE "C" NOT NULL,
    study_time          text COLLATE "C" NOT NULL,
    accession_number    text COLLATE "C" NOT NULL,
    study_id            text COLLATE "C" NOT NULL,
    referring_physician_name text COLLATE "C" NOT NULL,
    study_description   text COLLATE "C" NOT NULL,
    institution_name    text COLLATE "C" NOT NULL,
    reading_physicians_name text COLLATE "C" NOT NULL DEFAULT '',
    modalities          text COLLATE "C" NOT NULL DEFAULT '',  -- sorted, joined by a backslash
    sop_classes         text COLLATE "C" NOT NULL DEFAULT '',
    series_count        integer NOT NULL DEFAULT 0,
    instance_count      integer NOT NULL DEFAULT 0,
    attrs               jsonb NOT NULL,  -- patient and study attributes
    demo                boolean NOT NULL DEFAULT false,
    legal_hold          boolean NOT NULL DEFAULT false,  -- nothing of it may be deleted or replaced
    change_seq          bigint NOT NULL DEFAULT 0,  -- grows with each stored original, never with a result
    created_at          timestamptz NOT NULL DEFAULT now(),
    changed_at          timestamptz NOT NULL DEFAULT now()  -- the last stored original
);
CREATE INDEX study_by_patient ON study (patient_pk);
CREATE INDEX study_by_date ON study (study_date DESC, study_time DESC, pk DESC);  -- the order of every study list
CREATE INDEX study_by_patient_id ON study (patient_id);
CREATE INDEX study_by_accession ON study (accession_number);
CREATE INDEX study_by_name ON study (patient_name);  -- of collation C, so prefixes are found in it
-- a few attributes of one value come with several all the same: the compiler's second arm finds them here
CREATE INDEX study_many_patient_id ON study (pk) WHERE position('\' in patient_id) > 0;
CREATE INDEX study_many_patient_name ON study (pk) WHERE position('\' in patient_name) > 0;
CREATE INDEX study_many_study_date ON study (pk) WHERE position('\' in study_date) > 0;
CREATE INDEX study_many_accession_number ON study (pk) WHERE position('\' in accession_number) > 0;

CREATE TABLE series (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_pk            bigint NOT NULL REFERENCES study,
    series_uid          text COLLATE "C" NOT NULL,
    modality            text COLLATE "C" NOT NULL,
    series_number       text COLLATE "C" NOT NULL,
    series_description  text COLLATE "C" NOT NULL,
    series_date         text COLLATE "C" NOT NULL,
    series_time         text COLLATE "C" NOT NULL,
    body_part_examined  text COLLATE "C" NOT NULL,
    protocol_name       text COLLATE "C" NOT NULL,
    operators_name      text COLLATE "C" NOT NULL DEFAULT '',
    performing_physician_name text COLLATE "C" NOT NULL DEFAULT '',
    performed_procedure_step_start_date text COLLATE "C" NOT NULL,
    performed_procedure_step_start_time text COLLATE "C" NOT NULL,
    instance_count      integer NOT NULL DEFAULT 0,
    attrs               jsonb NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    changed_at          timestamptz NOT NULL DEFAULT now(),
    UNIQUE (study_pk, series_uid)
);
CREATE INDEX series_by_uid ON series (series_uid);
-- counters change with each store: room for the next version of the row on the same page
ALTER TABLE study SET (fillfactor = 60);
ALTER TABLE series SET (fillfactor = 60);
CREATE INDEX series_by_modality ON series (modality, pk);
CREATE INDEX series_many_modality ON series (pk) WHERE position('\' in modality) > 0;

CREATE TABLE instance (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    series_pk           bigint NOT NULL REFERENCES series,
    study_pk            bigint NOT NULL,  -- of its series, which has the reference
    sop_instance_uid    text COLLATE "C" NOT NULL UNIQUE,
    sop_class_uid       text COLLATE "C" NOT NULL,
    transfer_syntax_uid text COLLATE "C" NOT NULL,
    instance_number     text COLLATE "C" NOT NULL,
    content_date        text COLLATE "C" NOT NULL,
    content_time        text COLLATE "C" NOT NULL,
    number_of_frames    integer NOT NULL,  -- 0: no pixel data
    attrs               jsonb NOT NULL,
    object_name         text COLLATE "C" NOT NULL UNIQUE,  -- our name in the file store
    size                bigint NOT NULL,  -- bytes of the file
    data_offset         integer NOT NULL,  -- where the data set begins, after preamble and file meta
    sha256              bytea NOT NULL,  -- of the file
    data_sha256         bytea NOT NULL,  -- of the data set: what makes two objects equal
    original            boolean NOT NULL,  -- false: made by our devices, or SEG, SR, PR, KO
    hidden              boolean NOT NULL DEFAULT false,  -- rejected or superseded result
    version             integer NOT NULL DEFAULT 1,
    door                text NOT NULL,
    peer                text NOT NULL,
    stored_at           timestamptz NOT NULL DEFAULT now(),
    checked_at          timestamptz NOT NULL DEFAULT now()  -- when the file was last hashed: as it came, then by the scrub
);
CREATE INDEX instance_by_series ON instance (series_pk);
CREATE INDEX instance_by_study ON instance (study_pk);
CREATE INDEX instance_hidden ON instance (study_pk, series_pk) WHERE hidden;
CREATE INDEX instance_by_check ON instance (checked_at, pk);
CREATE INDEX instance_by_stored ON instance (stored_at);

-- an instance as readers name it, with the columns of StoredInstance (pacs/services/instances.py) in their order
CREATE VIEW held AS
SELECT i.pk, s.study_uid, r.series_uid, i.sop_class_uid, i.sop_instance_uid, i.transfer_syntax_uid, i.number_of_frames,
       i.object_name, i.size, i.data_offset, encode(i.sha256, 'hex') AS sha256,
       encode(i.data_sha256, 'hex') AS data_sha256, r.series_number, i.instance_number, i.hidden
FROM instance i JOIN series r ON r.pk = i.series_pk JOIN study s ON s.pk = i.study_pk;

-- what every read needs, computed once, soon after the answer
CREATE TABLE instance_derived (
    instance_pk         bigint PRIMARY KEY REFERENCES instance ON DELETE CASCADE,
    metadata            bytea NOT NULL,  -- zlib of the DICOM JSON object, bulk data URIs with a placeholder for the base
    frames              bytea NOT NULL,  -- zlib of the frame table (pacs/domain/frames.py)
    made_at             timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE instance_derived ALTER COLUMN metadata SET STORAGE EXTERNAL;
ALTER TABLE instance_derived ALTER COLUMN frames SET STORAGE EXTERNAL;

-- objects that nobody sees any more, until the clerk unlinks their files after the grace time
CREATE TABLE tombstone (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_name         text COLLATE "C" NOT NULL UNIQUE,
    study_uid           text COLLATE "C" NOT NULL,
    series_uid          text COLLATE "C" NOT NULL,
    sop_instance_uid    text COLLATE "C" NOT NULL,
    cause               text NOT NULL,  -- deleted, replaced, dropped
    made_at             timestamptz NOT NULL DEFAULT now()
);

-- other content under a known SOP Instance UID: the newcomer is set aside until somebody decides
CREATE TABLE conflict (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_uid           text COLLATE "C" NOT NULL,
    series_uid          text COLLATE "C" NOT NULL,
    sop_class_uid       text COLLATE "C" NOT NULL,
    sop_instance_uid    text COLLATE "C" NOT NULL,
    object_name         text COLLATE "C" NOT NULL,
    size                bigint NOT NULL,
    data_sha256         bytea NOT NULL,
    door                text NOT NULL,
    peer                text NOT NULL,
    refusal_id          text NOT NULL,
    state               text NOT NULL DEFAULT 'open',  -- open, kept, replaced
    made_at             timestamptz NOT NULL DEFAULT now(),
    resolved_at         timestamptz,
    UNIQUE (sop_instance_uid, data_sha256)
);

-- one Patient ID under several names: never blocks a store, shown to people
CREATE TABLE patient_conflict (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    patient_pk          bigint NOT NULL REFERENCES patient ON DELETE CASCADE,
    study_uid           text COLLATE "C" NOT NULL,
    keyword             text NOT NULL,
    made_at             timestamptz NOT NULL DEFAULT now(),
    UNIQUE (patient_pk, study_uid, keyword)
);

CREATE TABLE refusal (
    id                  text PRIMARY KEY,
    reason              text NOT NULL,
    message             text NOT NULL,  -- a sentence without patient data
    sop_class_uid       text NOT NULL,
    sop_instance_uid    text NOT NULL,
    study_uid           text NOT NULL,
    door                text NOT NULL,
    peer                text NOT NULL,
    address             text NOT NULL,
    made_at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX refusal_by_time ON refusal (made_at);

-- rows get their gap-free number when they are sealed, in the order of their ids, under one advisory lock:
-- a number given inside the writing transaction would have gaps after a rollback and could appear out of order
CREATE TABLE change_feed (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq                 bigint UNIQUE,
    action              text NOT NULL,  -- create, replace, delete
    study_uid           text COLLATE "C" NOT NULL,
    series_uid          text COLLATE "C" NOT NULL,
    sop_instance_uid    text COLLATE "C" NOT NULL,
    at                  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX change_feed_unsealed ON change_feed (id) WHERE seq IS NULL;

CREATE TABLE outbox (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic               text NOT NULL,
    payload             jsonb NOT NULL,
    made_at             timestamptz NOT NULL DEFAULT now(),
    sent_at             timestamptz
);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sent_at IS NULL;

CREATE TABLE audit (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at                  timestamptz NOT NULL DEFAULT clock_timestamp(),
    door                text NOT NULL,
    actor               text NOT NULL,
    address             text NOT NULL,
    action              text NOT NULL,  -- store, delete, read, search, ...
    outcome             text NOT NULL,  -- ok, refused, failed
    patient_id          text NOT NULL,
    study_uid           text NOT NULL,
    series_uid          text NOT NULL,
    sop_instance_uid    text NOT NULL,
    detail              jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_by_study ON audit (study_uid, id);
CREATE INDEX audit_by_patient ON audit (patient_id, id);

-- what the sweep and the scrub found and nobody has cured yet
CREATE TABLE finding (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind                text NOT NULL,  -- missing_file, wrong_digest, stray_file, counters
    object_name         text NOT NULL,
    sop_instance_uid    text NOT NULL,
    message             text NOT NULL,
    found_at            timestamptz NOT NULL DEFAULT now(),
    cured_at            timestamptz
);
CREATE UNIQUE INDEX finding_open ON finding (kind, object_name) WHERE cured_at IS NULL;

-- a few facts about the node itself: maintenance, epochs, last sweep
CREATE TABLE node_state (
    key                 text PRIMARY KEY,
    value               jsonb NOT NULL,
    changed_at          timestamptz NOT NULL DEFAULT now()
);
