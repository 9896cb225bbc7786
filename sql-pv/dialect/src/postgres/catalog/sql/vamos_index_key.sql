-- The key columns of each index, in order. An expression has no column: number 0 and no name.
SELECT i.oid AS index_oid, i.table_oid AS table_oid, k.seqno + 1 AS position, max(k.cid + 1, 0) AS number,
  k.name AS name, k."desc" AS descending
FROM vamos_index AS i, pragma_index_xinfo(i.source) AS k
WHERE i.source IS NOT NULL AND k.key = 1
UNION ALL
SELECT i.oid, i.table_oid, x.pk, x.cid + 1, x.name, 0
FROM vamos_index AS i, pragma_table_xinfo(i.table_name) AS x
WHERE i.source IS NULL AND x.pk > 0
