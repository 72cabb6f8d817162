-- name: add
-- A token of a program; no row when one of that name is in use.
INSERT INTO api_token (name, digest, roles, scope, account_pk, expires_at)
VALUES (%(name)s, %(digest)s, %(roles)s, %(scope)s,
        (SELECT pk FROM account WHERE username = %(owner)s), %(expires_at)s)
ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
RETURNING id;

-- name: list
-- All tokens, newest first, without what they are.
SELECT t.id, t.name, t.roles, t.scope, coalesce(a.username, '') AS owner, t.created_at, t.expires_at, t.used_at,
       t.revoked_at
FROM api_token t LEFT JOIN account a ON a.pk = t.account_pk
ORDER BY t.id DESC;

-- name: alive
-- A token in use whose maker, if it has one, may still come in.
SELECT t.id, t.name, t.roles, t.scope, extract(epoch FROM t.expires_at)::float AS ends,
       coalesce(t.used_at < now() - interval '1 minute', true) AS unseen
FROM api_token t LEFT JOIN account a ON a.pk = t.account_pk
WHERE t.digest = %(digest)s AND t.revoked_at IS NULL AND t.expires_at > now() AND NOT coalesce(a.disabled, false);

-- name: used
-- A token is in use.
UPDATE api_token SET used_at = now() WHERE id = %(id)s;

-- name: retire_ended
-- The name of a token that has ended by itself may be given again.
UPDATE api_token SET revoked_at = expires_at WHERE name = %(name)s AND revoked_at IS NULL AND expires_at <= now();

-- name: revoke
-- The end of a token, by its id or its name.
UPDATE api_token SET revoked_at = now()
WHERE (id::text = %(token)s OR name = %(token)s) AND revoked_at IS NULL
RETURNING id, name;
