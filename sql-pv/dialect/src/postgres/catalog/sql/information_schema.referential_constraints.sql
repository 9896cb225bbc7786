SELECT session_database() AS constraint_catalog, 'public' AS constraint_schema, f.name AS constraint_name,
  session_database() AS unique_constraint_catalog, 'public' AS unique_constraint_schema,
  (SELECT i.name FROM vamos_index AS i WHERE i.table_oid = f.parent_oid AND i.origin = 'pk') AS unique_constraint_name,
  'NONE' AS match_option, f.on_update AS update_rule, f.on_delete AS delete_rule
FROM vamos_foreign_key AS f
