SELECT g.oid AS oid, t.oid AS tgrelid, 0 AS tgparentid, g.name AS tgname, 0 AS tgfoid, 0 AS tgtype, 'O' AS tgenabled,
  0 AS tgisinternal, 0 AS tgconstrrelid, 0 AS tgconstrindid, 0 AS tgconstraint, 0 AS tgdeferrable,
  0 AS tginitdeferred, 0 AS tgnargs, '' AS tgattr
FROM vamos_object AS g JOIN vamos_object AS t ON t.type IN ('table', 'view') AND t.name = g.tbl_name COLLATE NOCASE
WHERE g.type = 'trigger'
