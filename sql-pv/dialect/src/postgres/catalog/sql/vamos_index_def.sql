-- What defines each index: the whole statement and its keys as PostgreSQL would show them.
SELECT i.oid AS oid,
  'CREATE ' || CASE WHEN i.is_unique THEN 'UNIQUE ' ELSE '' END || 'INDEX ' || quoted_name(i.name) ||
  ' ON public.' || quoted_name(i.table_name) || ' USING btree ' ||
  CASE WHEN i.sql IS NULL THEN '(' || k.keys || ')' ELSE substr(i.sql, instr(i.sql, '(')) END AS definition,
  k.keys AS keys,
  CASE WHEN instr(upper(one_line(i.sql)), ' WHERE ') > 0
    THEN trim(substr(i.sql, instr(upper(one_line(i.sql)), ' WHERE ') + 7)) END AS predicate
FROM vamos_index AS i
JOIN (SELECT index_oid, group_concat(quoted_name(name) || CASE WHEN descending THEN ' DESC' ELSE '' END, ', '
        ORDER BY position) AS keys
      FROM vamos_index_key GROUP BY index_oid) AS k ON k.index_oid = i.oid
