-- modality worklist (PS3.4 K): what is planned, as whoever plans it filled it in. One item is one scheduled step
CREATE TABLE worklist_item (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_uid           text COLLATE "C" NOT NULL,
    step_id             text NOT NULL,  -- Scheduled Procedure Step ID
    patient_id          text NOT NULL,
    state               text NOT NULL DEFAULT 'scheduled',  -- scheduled, started, completed
    start_date          text COLLATE "C" NOT NULL,  -- YYYYMMDD
    start_time          text COLLATE "C" NOT NULL,  -- HHMMSS.FFFFFF
    attributes          jsonb NOT NULL,  -- DICOM JSON
    created_at          timestamptz NOT NULL DEFAULT now(),
    changed_at          timestamptz NOT NULL DEFAULT now(),
    UNIQUE (study_uid, step_id)
);
CREATE INDEX worklist_item_planned ON worklist_item (start_date, start_time, id) WHERE state <> 'completed';

-- modality performed procedure steps (PS3.4 F.7): what modalities say that they do and have done
CREATE TABLE performed_step (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sop_instance_uid    text COLLATE "C" NOT NULL UNIQUE,
    state               text NOT NULL,  -- IN PROGRESS, COMPLETED, DISCONTINUED
    peer                text NOT NULL,
    address             text NOT NULL,
    attributes          jsonb NOT NULL,  -- DICOM JSON
    created_at          timestamptz NOT NULL DEFAULT now(),
    ended_at            timestamptz
);
CREATE INDEX performed_step_ended ON performed_step (ended_at);

CREATE TABLE performed_study (
    study_uid           text COLLATE "C" NOT NULL,
    step                bigint NOT NULL REFERENCES performed_step ON DELETE CASCADE,
    PRIMARY KEY (study_uid, step)
);
CREATE INDEX performed_study_by_step ON performed_study (step);

-- instances that a completed step names and that are not here yet
CREATE TABLE performed_gap (
    study_uid           text COLLATE "C" NOT NULL,
    sop_instance_uid    text COLLATE "C" NOT NULL,
    step                bigint NOT NULL REFERENCES performed_step ON DELETE CASCADE,
    PRIMARY KEY (study_uid, sop_instance_uid, step)
);
CREATE INDEX performed_gap_by_instance ON performed_gap (sop_instance_uid);
CREATE INDEX performed_gap_by_step ON performed_gap (step);

-- studies that a modality is at work on, or has not sent all of
CREATE VIEW unfinished_study AS
    SELECT p.study_uid FROM performed_study p JOIN performed_step s ON s.id = p.step WHERE s.state = 'IN PROGRESS'
    UNION ALL
    SELECT study_uid FROM performed_gap;
