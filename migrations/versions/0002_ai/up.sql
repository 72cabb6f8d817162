-- Postgres owns the truth about AI jobs; Redis is a doorbell. Nothing here is lost with all of Redis (storage.md D6).

CREATE TABLE ai_model (
    name                text NOT NULL,
    version             text NOT NULL,
    digest              text NOT NULL,  -- of the manifest's and the model's bytes
    state               text NOT NULL,  -- checking, enabled, quarantined, retired: what the check says
    disabled            boolean NOT NULL DEFAULT false,  -- what a person says; outlives checks and versions
    reason              text NOT NULL DEFAULT '',
    message             text NOT NULL DEFAULT '',
    path                text NOT NULL,
    manifest            jsonb NOT NULL DEFAULT '{}',
    checked_at          timestamptz,
    seen_at             timestamptz NOT NULL DEFAULT now(),  -- the last scan that found the folder
    PRIMARY KEY (name, version)
);

-- the ledger: when a study counts as complete, and why. It goes with its study
CREATE TABLE ai_study (
    study_pk            bigint PRIMARY KEY REFERENCES study ON DELETE CASCADE,
    study_uid           text COLLATE "C" NOT NULL UNIQUE,
    state               text NOT NULL,  -- open, likely, confirmed, reopened
    evidence            jsonb NOT NULL DEFAULT '{}',
    missing             jsonb NOT NULL DEFAULT '[]',  -- what the planner found absent, in words
    change_seq          bigint NOT NULL,  -- of the study when its state was last judged
    planned_seq         bigint NOT NULL DEFAULT 0,  -- the change that the last plan saw
    opened_at           timestamptz NOT NULL DEFAULT now(),
    confirmed_at        timestamptz,
    wait_until          timestamptz,  -- something is missing: judged again then, or when an original arrives
    claim_until         timestamptz  -- a planner is at work on it
);
CREATE INDEX ai_study_unconfirmed ON ai_study (opened_at) WHERE state <> 'confirmed';
CREATE INDEX ai_study_unplanned ON ai_study (confirmed_at) WHERE state = 'confirmed' AND planned_seq <> change_seq;

-- explicit runs: a person or a program asks for a study, whatever the clock says
CREATE TABLE ai_request (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_uid           text COLLATE "C" NOT NULL,
    model               text NOT NULL DEFAULT '',  -- empty: every enabled model
    priority            text NOT NULL,
    made_at             timestamptz NOT NULL DEFAULT now(),
    claims              integer NOT NULL DEFAULT 0,  -- how often a planner took it
    claim_until         timestamptz,
    done_at             timestamptz
);
CREATE INDEX ai_request_open ON ai_request (id) WHERE done_at IS NULL;

CREATE TABLE ai_job (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_key             text NOT NULL UNIQUE,  -- model bytes, manifest bytes, exact inputs, parameters; or the place of a decision not to run
    state               text NOT NULL,  -- the moves are in pacs/domain/jobs.py
    model               text NOT NULL,
    version             text NOT NULL,
    digest              text NOT NULL,
    study_uid           text COLLATE "C" NOT NULL,
    series_uids         text[] NOT NULL,
    priority            text NOT NULL,
    inputs              jsonb NOT NULL DEFAULT '[]',  -- the exact instances, frozen
    parameters          jsonb NOT NULL DEFAULT '{}',
    frozen_at           timestamptz NOT NULL DEFAULT date_trunc('second', now()),  -- the time that results carry
    predecessor         jsonb,  -- results this job replaces; frozen by the first lease
    max_attempts        integer NOT NULL,
    timeout_s           double precision NOT NULL,
    attempts            integer NOT NULL DEFAULT 0,
    fence               bigint NOT NULL DEFAULT 0,  -- grows with each lease: an older holder cannot commit
    lease_owner         text NOT NULL DEFAULT '',
    lease_until         timestamptz,
    due_at              timestamptz,  -- RETRY_WAIT ends
    published_at        timestamptz,  -- last told to Redis
    reason              text NOT NULL DEFAULT '',  -- machine word of SKIPPED, DEAD, CANCELLED, RETRY_WAIT, PLANNED
    message             text NOT NULL DEFAULT '',  -- the same as a sentence
    provider            text NOT NULL DEFAULT '',
    timings             jsonb NOT NULL DEFAULT '{}',
    evidence            jsonb NOT NULL DEFAULT '{}',
    created_at          timestamptz NOT NULL DEFAULT now(),
    queued_at           timestamptz,
    started_at          timestamptz,
    finished_at         timestamptz
);
CREATE INDEX ai_job_by_study ON ai_job (study_uid, id);
CREATE INDEX ai_job_by_state ON ai_job (state, id);
CREATE INDEX ai_job_queued ON ai_job (priority, id) WHERE state = 'QUEUED';
CREATE INDEX ai_job_leased ON ai_job (lease_until) WHERE state IN ('RUNNING', 'STORING');
CREATE INDEX ai_job_due ON ai_job (due_at) WHERE state = 'RETRY_WAIT';

CREATE TABLE ai_result (
    sop_instance_uid    text COLLATE "C" PRIMARY KEY,  -- derived from the job key: one set a job, however often it ran
    job_id              bigint NOT NULL REFERENCES ai_job,
    role                text NOT NULL,  -- seg, sr
    sop_class_uid       text COLLATE "C" NOT NULL,
    series_uid          text COLLATE "C" NOT NULL,
    state               text NOT NULL DEFAULT 'current',  -- current, superseded, accepted, rejected
    stored_at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ai_result_by_job ON ai_result (job_id);

CREATE TABLE ai_sidecar (
    owner               text PRIMARY KEY,  -- host and process
    ready               boolean NOT NULL,
    reason              text NOT NULL DEFAULT '',
    message             text NOT NULL DEFAULT '',
    device              text NOT NULL,
    provider            text NOT NULL DEFAULT '',
    seen_at             timestamptz NOT NULL DEFAULT now()
);
