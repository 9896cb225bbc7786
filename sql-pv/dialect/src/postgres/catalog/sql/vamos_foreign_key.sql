-- Foreign keys, a row each, their columns in order.
SELECT 1879048192 + t.number * 256 + f.id AS oid, t.oid AS table_oid, t.name AS table_name, p.oid AS parent_oid,
  t.name || '_' || group_concat(f."from", '_' ORDER BY f.seq) || '_fkey' AS name,
  '{' || group_concat(c.cid + 1, ',' ORDER BY f.seq) || '}' AS keys,
  '{' || group_concat(r.cid + 1, ',' ORDER BY f.seq) || '}' AS parent_keys,
  f.on_update AS on_update, f.on_delete AS on_delete, f."table" AS parent,
  'FOREIGN KEY (' || group_concat(quoted_name(f."from"), ', ' ORDER BY f.seq) || ') REFERENCES ' ||
  quoted_name(f."table") || '(' || group_concat(quoted_name(coalesce(f."to", r.name)), ', ' ORDER BY f.seq) || ')' ||
  CASE f.on_update WHEN 'NO ACTION' THEN '' ELSE ' ON UPDATE ' || f.on_update END ||
  CASE f.on_delete WHEN 'NO ACTION' THEN '' ELSE ' ON DELETE ' || f.on_delete END AS definition
FROM vamos_object AS t
JOIN pragma_foreign_key_list(t.name) AS f
JOIN pragma_table_xinfo(t.name) AS c ON c.name = f."from" COLLATE NOCASE
LEFT JOIN vamos_object AS p ON p.type = 'table' AND p.name = f."table" COLLATE NOCASE
LEFT JOIN pragma_table_xinfo(f."table") AS r ON
  CASE WHEN f."to" IS NULL THEN r.pk = f.seq + 1 ELSE r.name = f."to" COLLATE NOCASE END
WHERE t.type = 'table'
GROUP BY t.oid, f.id
