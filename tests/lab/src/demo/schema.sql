-- Debian's package catalogue, as rows.
CREATE TABLE maintainer (
    id integer PRIMARY KEY,
    name text NOT NULL,
    address text
);
CREATE TABLE section (
    id integer PRIMARY KEY,
    name text NOT NULL UNIQUE
);
CREATE TABLE package (
    id integer PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    architecture text NOT NULL,
    section_id integer NOT NULL REFERENCES section,
    maintainer_id integer NOT NULL REFERENCES maintainer,
    download_bytes bigint,
    installed_kib bigint,
    homepage text,
    summary text
);
-- "Depends: a (>= 1) | b, c" is three rows; a and b are alternatives 1 and 2 of requirement 1.
CREATE TABLE dependency (
    id integer PRIMARY KEY,
    package_id integer NOT NULL REFERENCES package,
    kind text NOT NULL,
    requirement integer NOT NULL,
    alternative integer NOT NULL,
    target text NOT NULL,
    condition text
);
