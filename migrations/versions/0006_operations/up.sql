-- What the doctor took out of the way: it moves and never deletes. Files lie below `quarantine` in the file store.
CREATE TABLE quarantined (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    what                text NOT NULL,  -- file, instance, series, study, patient, conflict
    name                text COLLATE "C" NOT NULL,  -- its UID, or its path before
    reason              text NOT NULL,  -- the check that found it
    place               text NOT NULL DEFAULT '',  -- the path of the file now
    content             jsonb NOT NULL DEFAULT '{}',  -- the row as it was, with its parents
    moved_at            timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX quarantined_by_name ON quarantined (name);
