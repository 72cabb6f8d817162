-- A role for Filmroom's processes on a Postgres of your own, which may add to the audit trail and not change it.
-- The owner of the database runs this once, and `filmroom db upgrade` at each upgrade; DATABASE_URL of the processes then
-- names filmroom_app. Set its password first:  \password filmroom_app
--     psql -d filmroom -f deploy/postgres/roles.sql
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'filmroom_app') THEN
        CREATE ROLE filmroom_app LOGIN;
    END IF;
END $$;
GRANT USAGE ON SCHEMA public TO filmroom_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO filmroom_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO filmroom_app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO filmroom_app;
REVOKE UPDATE, DELETE, TRUNCATE ON audit, audit_seal FROM filmroom_app;
REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM filmroom_app;
-- what later revisions make
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO filmroom_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO filmroom_app;
