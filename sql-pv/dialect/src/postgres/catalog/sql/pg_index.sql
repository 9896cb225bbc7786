SELECT i.oid AS indexrelid, i.table_oid AS indrelid, k.size AS indnatts, k.size AS indnkeyatts, i.is_unique AS indisunique,
  0 AS indnullsnotdistinct, i.origin = 'pk' AS indisprimary, 0 AS indisexclusion, 1 AS indimmediate,
  0 AS indisclustered, 1 AS indisvalid, 0 AS indcheckxmin, 1 AS indisready, 1 AS indislive, 0 AS indisreplident,
  k.numbers AS indkey, k.zeros AS indcollation, k.zeros AS indclass, k.options AS indoption,
  CASE WHEN k.expressions THEN d.keys END AS indexprs, d.predicate AS indpred
FROM vamos_index AS i
JOIN (SELECT index_oid, count(*) AS size, group_concat(number, ' ' ORDER BY position) AS numbers,
        group_concat(0, ' ') AS zeros, group_concat(descending * 3, ' ' ORDER BY position) AS options,
        max(number = 0) AS expressions
      FROM vamos_index_key GROUP BY index_oid) AS k ON k.index_oid = i.oid
JOIN vamos_index_def AS d ON d.oid = i.oid
