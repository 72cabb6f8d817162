-- name: add
-- A new account; no row when the name is taken.
INSERT INTO account (username, email, password, roles, scope)
VALUES (%(username)s, %(email)s, %(password)s, %(roles)s, %(scope)s)
ON CONFLICT (username) DO NOTHING
RETURNING pk;

-- name: list
-- All accounts, without what they are let in by.
SELECT username, email, roles, scope, disabled, created_at, signed_in_at FROM account ORDER BY username;

-- name: get
-- One account, likewise.
SELECT username, email, roles, scope, disabled, created_at, signed_in_at FROM account WHERE username = %(username)s;

-- name: lock
-- Changes of accounts go one after another, so that two of them cannot take the last administrator away.
LOCK TABLE account IN SHARE ROW EXCLUSIVE MODE;

-- name: change
-- An account as it shall be; an empty password stays as it is.
UPDATE account
SET email = %(email)s, roles = %(roles)s, scope = %(scope)s, disabled = %(disabled)s,
    password = coalesce(%(password)s, password),
    password_at = CASE WHEN %(password)s::text IS NULL THEN password_at ELSE now() END
WHERE username = %(username)s;

-- name: remove
-- An account, and with it its sessions and tokens.
DELETE FROM account WHERE username = %(username)s;

-- name: administrators
-- How many could still change accounts.
SELECT count(*) FROM account WHERE NOT disabled AND 'admin' = ANY(roles);

-- name: count
-- Whether anybody could sign in at all.
SELECT count(*) FROM account;

-- name: to_verify
-- What a password is held against.
SELECT pk, username, password, roles, scope, disabled FROM account WHERE username = %(username)s;

-- name: rehash
-- The same password under the costs of today, unless it has been changed meanwhile.
UPDATE account SET password = %(password)s WHERE pk = %(pk)s AND password = %(old)s;

-- name: set_password
-- A new password of one's own, unless it has been changed meanwhile.
UPDATE account SET password = %(password)s, password_at = now() WHERE pk = %(pk)s AND password = %(old)s;

-- name: signed_in
-- Somebody has come in.
UPDATE account SET signed_in_at = now() WHERE pk = %(pk)s;
