SELECT 1073741824 + (table_oid - 16384) * 2048 + position AS oid, table_oid AS adrelid, position AS adnum,
  default_value AS adbin
FROM vamos_column WHERE default_value IS NOT NULL
