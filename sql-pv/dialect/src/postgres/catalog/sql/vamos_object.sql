-- Every table, index, view and trigger with the number that is its OID: stable until the schema changes.
SELECT rowid + 16384 AS oid, rowid AS number, type AS type, name AS name, tbl_name AS tbl_name, sql AS sql
FROM main.sqlite_schema
WHERE name NOT GLOB '_vamos_*' AND tbl_name NOT GLOB '_vamos_*' AND (name NOT GLOB 'sqlite_*' OR name GLOB 'sqlite_autoindex_*')
