SELECT column1 AS oid, column2 AS amname, column3 AS amtype
FROM (VALUES (2, 'heap', 't'), (403, 'btree', 'i'))
