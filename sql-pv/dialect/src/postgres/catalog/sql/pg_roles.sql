SELECT session_user_name() AS rolname, 0 AS rolsuper, 1 AS rolinherit, 0 AS rolcreaterole, 0 AS rolcreatedb, 1 AS rolcanlogin,
  0 AS rolreplication, -1 AS rolconnlimit, '********' AS rolpassword, 0 AS rolbypassrls, 10 AS oid
