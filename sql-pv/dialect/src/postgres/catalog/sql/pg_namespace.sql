SELECT column1 AS oid, column2 AS nspname, 10 AS nspowner
FROM (VALUES (11, 'pg_catalog'), (2200, 'public'), (13000, 'information_schema'))
