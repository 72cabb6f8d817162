-- The rows stay. Their seals go; the way up again seals them anew.
DROP TRIGGER audit_append_only ON audit;
DROP TABLE audit_seal;
DROP FUNCTION refuse_change();
DROP INDEX audit_by_listed;
DROP INDEX audit_by_time;
