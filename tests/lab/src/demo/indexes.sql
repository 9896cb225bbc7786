-- After the load, as one does.
CREATE INDEX package_name ON package (name);
CREATE INDEX dependency_package ON dependency (package_id);
CREATE INDEX dependency_target ON dependency (target);
