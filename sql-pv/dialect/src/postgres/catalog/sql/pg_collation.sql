SELECT column1 AS oid, column2 AS collname, 11 AS collnamespace, 10 AS collowner, column3 AS collprovider,
  1 AS collisdeterministic, -1 AS collencoding, column4 AS collcollate, column4 AS collctype
FROM (VALUES (100, 'default', 'd', NULL), (950, 'C', 'c', 'C'), (951, 'POSIX', 'c', 'POSIX'))
