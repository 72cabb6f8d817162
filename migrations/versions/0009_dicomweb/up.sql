-- Dates and times in the zone of a query. Both parts are in normal form (pacs/domain/normal.py): YYYYMMDD and
-- HHMMSS.FFFFFF, or empty; whatever is not (several values) stays as it is. A day of no calendar (the 31st of February), which real
-- objects have, is no error: it counts on from the first of its month.

-- The minutes of a Timezone Offset From UTC; null for what is none.
CREATE FUNCTION offset_minutes(given text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (o[1] || '1')::integer * (o[2]::integer * 60 + o[3]::integer)
    FROM regexp_match(btrim(given), '^([+-])(0[0-9]|1[0-4])([0-5][0-9])$') AS o
$$;

-- The moment `minutes` later, YYYYMMDDHHMMSS.FFFFFF; null where there is no day or no time, or nothing to move.
CREATE FUNCTION shifted(day text, clock text, minutes integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN minutes <> 0 AND day ~ '^[0-9]{8}$' AND left(day, 4) <> '0000' AND clock ~ '^[0-9]{6}[.][0-9]{6}$'
    THEN to_char(make_date(left(day, 4)::integer, substr(day, 5, 2)::integer, 1)::timestamp
                 + make_interval(days => substr(day, 7)::integer - 1, hours => left(clock, 2)::integer,
                                 mins => substr(clock, 3, 2)::integer + minutes,
                                 secs => substr(clock, 5)::double precision), 'YYYYMMDDHH24MISS.US')
    END
$$;

CREATE FUNCTION shifted_day(day text, clock text, minutes integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT coalesce(left(shifted(day, clock, minutes), 8), day) $$;

CREATE FUNCTION shifted_clock(day text, clock text, minutes integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(substr(shifted(CASE WHEN day = '' THEN '20000101' ELSE day END, clock, minutes), 9), clock)
$$;

-- Values of attributes that the configuration adds to the index, in normal form, one row each. Filled soon after the
-- answer, from derived metadata. No foreign keys: these tables follow the instances, and never hold a writer up.
CREATE TABLE indexed_value (
    instance_pk         bigint NOT NULL,
    attribute           text COLLATE "C" NOT NULL,  -- hexadecimal tags joined by dots
    value               text COLLATE "C" NOT NULL
);
CREATE INDEX indexed_value_by_value ON indexed_value (attribute, value, instance_pk);
CREATE INDEX indexed_value_by_instance ON indexed_value (instance_pk, attribute);

-- which instances are done, under which list of attributes
CREATE TABLE indexed_instance (
    instance_pk         bigint PRIMARY KEY,
    attributes          text NOT NULL
);
