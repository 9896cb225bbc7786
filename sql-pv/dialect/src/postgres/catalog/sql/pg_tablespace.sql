SELECT column1 AS oid, column2 AS spcname, 10 AS spcowner
FROM (VALUES (1663, 'pg_default'), (1664, 'pg_global'))
