SELECT session_database() AS table_catalog, 'public' AS table_schema, c.table_name AS table_name, c.name AS column_name,
  session_database() AS constraint_catalog, 'public' AS constraint_schema, k.conname AS constraint_name
FROM pg_constraint AS k,
  json_each('[' || trim(CASE k.contype WHEN 'f' THEN k.confkey ELSE k.conkey END, '{}') || ']') AS e, vamos_column AS c
WHERE c.table_oid = CASE k.contype WHEN 'f' THEN k.confrelid ELSE k.conrelid END AND c.position = e.value
