SELECT session_database() AS constraint_catalog, 'public' AS constraint_schema, k.conname AS constraint_name,
  session_database() AS table_catalog, 'public' AS table_schema, c.table_name AS table_name, c.name AS column_name,
  e.key + 1 AS ordinal_position, CASE k.contype WHEN 'f' THEN e.key + 1 END AS position_in_unique_constraint
FROM pg_constraint AS k, json_each('[' || trim(k.conkey, '{}') || ']') AS e, vamos_column AS c
WHERE c.table_oid = k.conrelid AND c.position = e.value
