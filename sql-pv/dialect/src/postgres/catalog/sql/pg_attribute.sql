SELECT c.table_oid AS attrelid, c.name AS attname, c.type_oid AS atttypid, -1 AS attstattarget,
  type_length(c.type_oid) AS attlen, c.position AS attnum, 0 AS attndims, -1 AS attcacheoff,
  CASE WHEN c.length IS NULL THEN -1
    WHEN c.type_oid IN (1042, 1043) THEN c.length + 4
    WHEN c.type_oid = 1700 THEN (c.length << 16 | c.scale) + 4
    ELSE -1 END AS atttypmod,
  c.type_oid IN (16, 20, 26, 701, 1082, 1083, 1114, 1184) AS attbyval, 'i' AS attalign,
  CASE WHEN type_length(c.type_oid) > 0 THEN 'p' WHEN c.type_oid = 1700 THEN 'm' ELSE 'x' END AS attstorage,
  '' AS attcompression, c.is_not_null AS attnotnull, c.default_value IS NOT NULL AS atthasdef, 0 AS atthasmissing,
  CASE WHEN c.is_identity THEN 'd' ELSE '' END AS attidentity,
  CASE WHEN c.is_generated THEN 's' ELSE '' END AS attgenerated, 0 AS attisdropped, 1 AS attislocal,
  0 AS attinhcount, CASE WHEN c.type_oid IN (25, 1042, 1043) THEN 100 WHEN c.type_oid = 19 THEN 950 ELSE 0 END AS attcollation
FROM vamos_column AS c
UNION ALL
SELECT k.index_oid, coalesce(k.name, 'expr'), coalesce(c.type_oid, 25), -1, type_length(coalesce(c.type_oid, 25)),
  k.position, 0, -1, -1, 0, 'i', 'p', '', 0, 0, 0, '', '', 0, 1, 0, 0
FROM vamos_index_key AS k LEFT JOIN vamos_column AS c ON c.table_oid = k.table_oid AND c.position = k.number
