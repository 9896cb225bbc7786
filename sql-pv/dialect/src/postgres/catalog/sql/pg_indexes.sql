SELECT 'public' AS schemaname, i.table_name AS tablename, i.name AS indexname, d.definition AS indexdef
FROM vamos_index AS i JOIN vamos_index_def AS d ON d.oid = i.oid
