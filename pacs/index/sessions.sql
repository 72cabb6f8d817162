-- name: open
-- A session begins.
INSERT INTO session (id, account_pk, kind, digest, address, expires_at)
VALUES (%(id)s, %(account_pk)s, %(kind)s, %(digest)s, %(address)s, now() + make_interval(secs => %(seconds)s));

-- name: alive
-- A session that has not ended, of an account that may come in.
SELECT s.kind, s.digest, s.seen_at < now() - interval '1 minute' AS unseen, a.username, a.roles, a.scope
FROM session s JOIN account a ON a.pk = s.account_pk
WHERE s.id = %(id)s AND s.ended_at IS NULL AND s.expires_at > now() AND NOT a.disabled
  AND (s.kind <> 'cookie' OR s.seen_at > now() - make_interval(secs => %(idle)s));

-- name: seen
-- A session is in use; its digest moves to the key of today.
UPDATE session SET seen_at = now(), digest = %(digest)s WHERE id = %(id)s AND ended_at IS NULL;

-- name: rotate
-- The next refresh token takes the place of the one shown; no row when that is not the newest.
UPDATE session s SET digest = %(digest)s, seen_at = now()
FROM account a
WHERE s.id = %(id)s AND s.kind = 'bearer' AND s.digest = ANY(%(shown)s) AND s.ended_at IS NULL AND s.expires_at > now()
  AND a.pk = s.account_pk AND NOT a.disabled
RETURNING a.username;

-- name: end
-- A session ends; its account where it had not ended before.
UPDATE session s SET ended_at = now(), ended_by = %(cause)s
FROM account a
WHERE s.id = %(id)s AND s.ended_at IS NULL AND a.pk = s.account_pk
RETURNING a.username;

-- name: end_of_account
-- All sessions of an account end, but for one.
UPDATE session s SET ended_at = now(), ended_by = %(cause)s
FROM account a
WHERE a.username = %(username)s AND s.account_pk = a.pk AND s.ended_at IS NULL AND s.id <> %(except)s;

-- name: end_all
-- Everybody has to sign in anew.
UPDATE session SET ended_at = now(), ended_by = %(cause)s WHERE ended_at IS NULL;

-- name: tidy
-- What ended long ago.
DELETE FROM session WHERE expires_at < now() - interval '30 days';

-- name: recent_failures
-- Wrong passwords for this name from this address of late, and how long until the oldest of them is forgotten.
SELECT count(*) AS n, coalesce(extract(epoch FROM min(at) + make_interval(secs => %(seconds)s) - now()), 0)::float AS wait
FROM (
    SELECT at FROM login_failure
    WHERE who = %(who)s AND address = %(address)s AND at > now() - make_interval(secs => %(seconds)s)
    ORDER BY at DESC LIMIT %(most)s
) AS late;

-- name: failures_from
-- Wrong passwords for any name from this address of late.
SELECT count(*) AS n, coalesce(extract(epoch FROM min(at) + make_interval(secs => %(seconds)s) - now()), 0)::float AS wait
FROM (
    SELECT at FROM login_failure
    WHERE address = %(address)s AND at > now() - make_interval(secs => %(seconds)s)
    ORDER BY at DESC LIMIT %(most)s
) AS late;

-- name: failed
-- One more wrong password.
INSERT INTO login_failure (who, address) VALUES (%(who)s, %(address)s);

-- name: forgive
-- The right password makes the wrong ones before it forgotten.
DELETE FROM login_failure WHERE who = %(who)s AND address = %(address)s;

-- name: tidy_failures
-- Wrong passwords that count no more.
DELETE FROM login_failure WHERE at < now() - interval '1 hour';
