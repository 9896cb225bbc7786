SELECT session_user_name() AS usename, 10 AS usesysid, 0 AS usecreatedb, 0 AS usesuper, 0 AS userepl, 0 AS usebypassrls,
  '********' AS passwd
