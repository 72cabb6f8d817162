-- name: seen
-- A scan found a package. A changed digest starts its check again; a new version of a disabled model is disabled too.
INSERT INTO ai_model (name, version, digest, state, reason, message, path, manifest, checked_at, disabled)
VALUES (%(name)s, %(version)s, %(digest)s, %(state)s, %(reason)s, %(message)s, %(path)s, %(manifest)s,
        CASE WHEN %(state)s = 'checking' THEN NULL ELSE now() END,
        EXISTS (SELECT FROM ai_model WHERE name = %(name)s AND disabled))
ON CONFLICT (name, version) DO UPDATE SET digest = excluded.digest, state = excluded.state, reason = excluded.reason,
    message = excluded.message, path = excluded.path, manifest = excluded.manifest, checked_at = excluded.checked_at,
    seen_at = now();

-- name: still_there
UPDATE ai_model SET seen_at = now() WHERE path = ANY(%(paths)s);

-- name: retire
-- No sidecar has found the folder for a while.
UPDATE ai_model SET state = 'retired', reason = 'folder_gone', message = 'Its folder is no longer there.'
WHERE state <> 'retired' AND seen_at < now() - %(seconds)s * interval '1 second';

-- name: list
SELECT * FROM ai_model ORDER BY name, version;

-- name: switch
UPDATE ai_model SET disabled = %(disabled)s WHERE name = %(name)s RETURNING name;

-- name: sidecar
INSERT INTO ai_sidecar (owner, ready, reason, message, device, provider)
VALUES (%(owner)s, %(ready)s, %(reason)s, %(message)s, %(device)s, %(provider)s)
ON CONFLICT (owner) DO UPDATE SET ready = excluded.ready, reason = excluded.reason, message = excluded.message,
    device = excluded.device, provider = excluded.provider, seen_at = now();

-- name: sidecar_gone
DELETE FROM ai_sidecar WHERE owner = %(owner)s;

-- name: forget_sidecars
DELETE FROM ai_sidecar WHERE seen_at < now() - interval '1 day';

-- name: sidecars
SELECT owner, ready, reason, message, device, provider, seen_at,
       extract(epoch FROM now() - seen_at)::float8 AS silent_seconds
FROM ai_sidecar WHERE seen_at > now() - %(seconds)s * interval '1 second' ORDER BY owner;

-- name: states
-- For the metrics; a quarantined package failed its check or its golden test.
SELECT CASE WHEN disabled AND state <> 'retired' THEN 'disabled' ELSE state END AS state, count(*) AS models
FROM ai_model GROUP BY 1;
