-- Indexes as PostgreSQL has them: a primary key is one, whether SQLite keeps an index for it or the table
-- is it. `source` is the name in SQLite; none for a primary key that is the table itself.
SELECT 536870912 + t.number AS oid, t.oid AS table_oid, t.name AS table_name, t.name || '_pkey' AS name,
  (SELECT l.name FROM pragma_index_list(t.name) AS l WHERE l.origin = 'pk') AS source,
  1 AS is_unique, 'pk' AS origin, NULL AS sql
FROM vamos_object AS t
WHERE t.type = 'table' AND EXISTS (SELECT 1 FROM pragma_table_xinfo(t.name) AS x WHERE x.pk > 0)
UNION ALL
SELECT o.oid, t.oid, t.name,
  CASE l.origin WHEN 'u' THEN t.name || '_' ||
    (SELECT group_concat(i.name, '_' ORDER BY i.seqno) FROM pragma_index_info(l.name) AS i) || '_key'
  ELSE l.name END,
  l.name, l."unique", l.origin, o.sql
FROM vamos_object AS t, pragma_index_list(t.name) AS l, vamos_object AS o
WHERE t.type = 'table' AND l.origin <> 'pk' AND o.type = 'index' AND o.name = l.name
