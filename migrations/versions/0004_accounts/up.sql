-- Who may come in, and who is in. Nothing here is a secret as it stands: passwords are argon2id, what is carried by
-- clients is kept as a digest of it.

CREATE TABLE account (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username            text COLLATE "C" NOT NULL UNIQUE,  -- lower case
    email               text NOT NULL,
    password            text NOT NULL,  -- argon2id in its own notation
    roles               text[] NOT NULL,
    scope               jsonb,  -- institutions, aes, labels whose studies are shown; null: every study
    disabled            boolean NOT NULL DEFAULT false,
    created_at          timestamptz NOT NULL DEFAULT now(),
    password_at         timestamptz NOT NULL DEFAULT now(),
    signed_in_at        timestamptz
);

-- one sign-in of one person: a browser's cookie, or a program's chain of refresh tokens
CREATE TABLE session (
    id                  text COLLATE "C" PRIMARY KEY,
    account_pk          bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    kind                text NOT NULL,  -- cookie, bearer
    digest              bytea NOT NULL,  -- of the cookie or the newest refresh token, keyed by SECRET_KEY
    address             text NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    seen_at             timestamptz NOT NULL DEFAULT now(),
    expires_at          timestamptz NOT NULL,
    ended_at            timestamptz,
    ended_by            text NOT NULL DEFAULT ''  -- logout, password, reuse, disabled, ...
);
CREATE INDEX session_by_account ON session (account_pk) WHERE ended_at IS NULL;
CREATE INDEX session_by_end ON session (expires_at);

-- tokens of programs, by name
CREATE TABLE api_token (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                text COLLATE "C" NOT NULL,
    digest              bytea NOT NULL UNIQUE,  -- SHA-256 of the token
    roles               text[] NOT NULL,
    scope               jsonb,
    account_pk          bigint REFERENCES account ON DELETE CASCADE,  -- who made it; null: the command line
    created_at          timestamptz NOT NULL DEFAULT now(),
    expires_at          timestamptz NOT NULL,
    used_at             timestamptz,
    revoked_at          timestamptz
);
CREATE UNIQUE INDEX api_token_in_use ON api_token (name) WHERE revoked_at IS NULL;
CREATE INDEX api_token_by_account ON api_token (account_pk);

-- wrong passwords of a while ago. What was typed as a name may have been a password: only its digest is kept
CREATE TABLE login_failure (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    who                 bytea NOT NULL,
    address             text NOT NULL,
    at                  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX login_failure_by_who ON login_failure (who, address, at);
CREATE INDEX login_failure_by_address ON login_failure (address, at);
CREATE INDEX login_failure_by_time ON login_failure (at);

-- words that an administrator puts on a study, by which accounts may be kept to a part of the archive
CREATE TABLE study_label (
    study_pk            bigint NOT NULL REFERENCES study ON DELETE CASCADE,
    label               text COLLATE "C" NOT NULL,
    made_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (study_pk, label)
);
CREATE INDEX study_label_by_label ON study_label (label, study_pk);
