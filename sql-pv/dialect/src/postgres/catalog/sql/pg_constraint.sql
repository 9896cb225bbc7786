SELECT 1073741824 + i.oid AS oid, i.name AS conname, 2200 AS connamespace,
  CASE i.origin WHEN 'pk' THEN 'p' ELSE 'u' END AS contype, 0 AS condeferrable, 0 AS condeferred, 1 AS convalidated,
  i.table_oid AS conrelid, 0 AS contypid, i.oid AS conindid, 0 AS conparentid, 0 AS confrelid, ' ' AS confupdtype,
  ' ' AS confdeltype, ' ' AS confmatchtype, 1 AS conislocal, 0 AS coninhcount, 1 AS connoinherit,
  (SELECT '{' || group_concat(k.number, ',' ORDER BY k.position) || '}' FROM vamos_index_key AS k
   WHERE k.index_oid = i.oid) AS conkey, NULL AS confkey
FROM vamos_index AS i WHERE i.origin IN ('pk', 'u')
UNION ALL
SELECT f.oid, f.name, 2200, 'f', 0, 0, 1, f.table_oid, 0,
  coalesce((SELECT i.oid FROM vamos_index AS i WHERE i.table_oid = f.parent_oid AND i.origin = 'pk'), 0), 0,
  coalesce(f.parent_oid, 0), action_code(f.on_update), action_code(f.on_delete), 's', 1, 0, 1, f.keys, f.parent_keys
FROM vamos_foreign_key AS f
