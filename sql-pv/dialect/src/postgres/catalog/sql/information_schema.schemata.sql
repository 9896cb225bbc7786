SELECT session_database() AS catalog_name, nspname AS schema_name, session_user_name() AS schema_owner FROM pg_namespace
