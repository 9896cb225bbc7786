SELECT n.nspname AS schemaname, c.relname AS viewname, session_user_name() AS viewowner, d.definition AS definition
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace LEFT JOIN vamos_definition AS d ON d.oid = c.oid
WHERE c.relkind = 'v'
