-- Columns of tables and views with their declared types taken apart. A table's number can be its primary key
-- without an index for it: SQLite then makes up the values that are left out.
SELECT o.oid AS table_oid, o.name AS table_name, o.type AS table_type, x.cid + 1 AS position, x.name AS name,
  x.type AS declared, declared_type(x.type) AS type_oid,
  CASE WHEN instr(x.type, '(') > 0 THEN CAST(substr(x.type, instr(x.type, '(') + 1) AS INTEGER) END AS length,
  CASE WHEN instr(x.type, ',') > instr(x.type, '(') THEN CAST(ltrim(substr(x.type, instr(x.type, ',') + 1)) AS INTEGER)
    ELSE 0 END AS scale,
  x."notnull" OR x.pk > 0 AS is_not_null, x.dflt_value AS default_value, x.hidden IN (2, 3) AS is_generated,
  x.pk > 0 AND NOT EXISTS (SELECT 1 FROM pragma_index_list(o.name) AS l WHERE l.origin = 'pk') AS is_identity
FROM vamos_object AS o, pragma_table_xinfo(o.name) AS x
WHERE o.type IN ('table', 'view') AND x.hidden <> 1
