SELECT n.nspname AS schemaname, c.relname AS tablename, session_user_name() AS tableowner, c.relhasindex AS hasindexes,
  c.relhasrules AS hasrules, c.relhastriggers AS hastriggers, 0 AS rowsecurity
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind = 'r'
