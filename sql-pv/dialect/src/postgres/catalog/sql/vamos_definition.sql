-- What defines each view (its query) and each trigger (its whole statement).
SELECT oid AS oid, CASE type WHEN 'trigger' THEN sql
  ELSE trim(substr(sql, instr(upper(one_line(sql)), ' AS ') + 4)) || ';' END AS definition
FROM vamos_object WHERE type IN ('view', 'trigger')
