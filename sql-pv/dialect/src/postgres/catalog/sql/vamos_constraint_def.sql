-- What defines each constraint.
SELECT 1073741824 + i.oid AS oid, CASE i.origin WHEN 'pk' THEN 'PRIMARY KEY (' ELSE 'UNIQUE (' END || d.keys || ')' AS definition
FROM vamos_index AS i JOIN vamos_index_def AS d ON d.oid = i.oid WHERE i.origin IN ('pk', 'u')
UNION ALL SELECT oid, definition FROM vamos_foreign_key
