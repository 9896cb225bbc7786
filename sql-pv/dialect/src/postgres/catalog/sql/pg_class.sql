SELECT o.oid AS oid, o.name AS relname, 2200 AS relnamespace, 0 AS reltype, 0 AS reloftype, 10 AS relowner,
  CASE o.type WHEN 'table' THEN 2 ELSE 0 END AS relam, o.oid AS relfilenode, 0 AS reltablespace, 0 AS relpages,
  -1 AS reltuples, 0 AS relallvisible, 0 AS reltoastrelid,
  EXISTS (SELECT 1 FROM vamos_index AS i WHERE i.table_oid = o.oid) AS relhasindex, 0 AS relisshared,
  'p' AS relpersistence, CASE o.type WHEN 'table' THEN 'r' ELSE 'v' END AS relkind,
  (SELECT count(*) FROM pragma_table_xinfo(o.name)) AS relnatts, 0 AS relchecks, o.type = 'view' AS relhasrules,
  EXISTS (SELECT 1 FROM vamos_object AS g WHERE g.type = 'trigger' AND g.tbl_name = o.name COLLATE NOCASE)
    OR EXISTS (SELECT 1 FROM vamos_foreign_key AS f WHERE o.oid IN (f.table_oid, f.parent_oid)) AS relhastriggers,
  0 AS relhassubclass, 0 AS relrowsecurity, 0 AS relforcerowsecurity, 1 AS relispopulated,
  CASE o.type WHEN 'table' THEN 'd' ELSE 'n' END AS relreplident, 0 AS relispartition, 0 AS relrewrite,
  0 AS relfrozenxid, 0 AS relminmxid
FROM vamos_object AS o WHERE o.type IN ('table', 'view')
UNION ALL
SELECT i.oid, i.name, 2200, 0, 0, 10, 403, i.oid, 0, 0, 0, 0, 0, 0, 0, 'p', 'i',
  (SELECT count(*) FROM vamos_index_key AS k WHERE k.index_oid = i.oid), 0, 0, 0, 0, 0, 0, 1, 'n', 0, 0, 0, 0
FROM vamos_index AS i
UNION ALL
SELECT oid, name, 11, 0, 0, 10, CASE kind WHEN 'r' THEN 2 ELSE 0 END, 0, 0, 0, 0, 0, 0, 0, 0, 'p', kind,
  0, 0, kind = 'v', 0, 0, 0, 0, 1, 'n', 0, 0, 0, 0
FROM vamos_system_relation
