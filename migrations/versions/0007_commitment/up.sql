-- storage commitment (PS3.4 J): what was asked, what was found, and whether the asker knows
CREATE TABLE commitment (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_uid     text COLLATE "C" NOT NULL,
    peer                text NOT NULL,  -- the calling AE title, which is called back
    address             text NOT NULL,
    state               text NOT NULL DEFAULT 'asked',  -- asked, checked, reported, dead
    attempts            integer NOT NULL DEFAULT 0,  -- of reporting
    due_at              timestamptz NOT NULL,  -- from then on the clerk sees to it
    message             text NOT NULL DEFAULT '',  -- why the last attempt failed
    made_at             timestamptz NOT NULL DEFAULT now(),
    checked_at          timestamptz,
    done_at             timestamptz
);
CREATE INDEX commitment_due ON commitment (due_at) WHERE state IN ('asked', 'checked');
CREATE INDEX commitment_by_time ON commitment (made_at);

CREATE TABLE commitment_item (
    commitment_id       bigint NOT NULL REFERENCES commitment ON DELETE CASCADE,
    number              integer NOT NULL,  -- its place in the request
    sop_class_uid       text COLLATE "C" NOT NULL,
    sop_instance_uid    text COLLATE "C" NOT NULL,
    reason              integer,  -- null: not looked at yet; 0: kept; else a failure reason of PS3.3 C.14
    PRIMARY KEY (commitment_id, number)
);

-- instances that a commitment list names beside those of a study, and that are not here: the study is not complete
CREATE TABLE commitment_gap (
    study_uid           text COLLATE "C" NOT NULL,
    sop_instance_uid    text COLLATE "C" NOT NULL,
    commitment_id       bigint NOT NULL REFERENCES commitment ON DELETE CASCADE,
    made_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (study_uid, sop_instance_uid)
);
CREATE INDEX commitment_gap_by_instance ON commitment_gap (sop_instance_uid);
CREATE INDEX commitment_gap_by_commitment ON commitment_gap (commitment_id);

-- forwarding: one row for each object and destination, whatever rules wanted it
CREATE TABLE forward_item (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination         text NOT NULL,  -- an AE title of peers.toml, or the URL of a STOW service
    rule                text NOT NULL,  -- the first that matched
    study_uid           text COLLATE "C" NOT NULL,
    sop_instance_uid    text COLLATE "C" NOT NULL,
    object_name         text COLLATE "C" NOT NULL,  -- another version of the instance is another object
    state               text NOT NULL DEFAULT 'waiting',  -- waiting, sent, dead, dropped
    attempts            integer NOT NULL DEFAULT 0,  -- that failed because of the object, not of the destination
    due_at              timestamptz NOT NULL DEFAULT now(),
    lease_until         timestamptz,  -- a sender is at it
    message             text NOT NULL DEFAULT '',
    made_at             timestamptz NOT NULL DEFAULT now(),
    done_at             timestamptz,
    UNIQUE (destination, object_name)
);
CREATE INDEX forward_item_waiting ON forward_item (destination, id) WHERE state = 'waiting';
CREATE INDEX forward_item_dead ON forward_item (id) WHERE state = 'dead';
CREATE INDEX forward_item_done ON forward_item (done_at) WHERE state IN ('sent', 'dropped');

-- the circuit breaker of a destination: after failures it is left alone until retry_at
CREATE TABLE forward_destination (
    name                text PRIMARY KEY,
    failures            integer NOT NULL DEFAULT 0,  -- in a row
    retry_at            timestamptz,
    message             text NOT NULL DEFAULT '',
    changed_at          timestamptz NOT NULL DEFAULT now()
);

-- up to where the change feed has been looked at for rules: what was stored before rules existed is not forwarded
INSERT INTO node_state (key, value) SELECT 'forward_cursor', to_jsonb(coalesce(max(seq), 0)) FROM change_feed;
