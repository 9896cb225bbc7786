SELECT session_database() AS constraint_catalog, 'public' AS constraint_schema, k.conname AS constraint_name,
  session_database() AS table_catalog, 'public' AS table_schema, o.name AS table_name,
  CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' ELSE 'FOREIGN KEY' END AS constraint_type,
  'NO' AS is_deferrable, 'NO' AS initially_deferred, 'YES' AS enforced,
  CASE k.contype WHEN 'u' THEN 'YES' END AS nulls_distinct
FROM pg_constraint AS k JOIN vamos_object AS o ON o.oid = k.conrelid
