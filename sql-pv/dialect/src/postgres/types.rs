//! PostgreSQL's types as far as values of SQLite's five storage classes can have them.

/// A type of a result column: its OID on the wire, its length, its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PgType {
    /// `boolean`: SQLite's integers 0 and 1.
    Bool,
    /// `bytea`: a blob.
    Bytea,
    /// `"char"`: the catalogue's one-letter codes.
    Char,
    /// `name`: the catalogue's names.
    Name,
    /// `bigint`: every integer SQLite has.
    Int8,
    /// `smallint`.
    Int2,
    /// `integer`, of 32 bits.
    Int4,
    /// `text`.
    Text,
    /// `oid`.
    Oid,
    /// `json`.
    Json,
    /// `real`.
    Float4,
    /// `double precision`: every real SQLite has.
    Float8,
    /// `character(n)`.
    Bpchar,
    /// `character varying(n)`.
    Varchar,
    /// `date`.
    Date,
    /// `time`.
    Time,
    /// `timestamp`.
    Timestamp,
    /// `timestamp with time zone`.
    Timestamptz,
    /// `numeric`.
    Numeric,
    /// `uuid`.
    Uuid,
    /// `jsonb`.
    Jsonb,
}

impl PgType {
    /// Every type, in the order of their OIDs.
    pub const ALL: [PgType; 21] = [
        PgType::Bool,
        PgType::Bytea,
        PgType::Char,
        PgType::Name,
        PgType::Int8,
        PgType::Int2,
        PgType::Int4,
        PgType::Text,
        PgType::Oid,
        PgType::Json,
        PgType::Float4,
        PgType::Float8,
        PgType::Bpchar,
        PgType::Varchar,
        PgType::Date,
        PgType::Time,
        PgType::Timestamp,
        PgType::Timestamptz,
        PgType::Numeric,
        PgType::Uuid,
        PgType::Jsonb,
    ];

    /// OID, length in bytes (-1: it varies), catalogue name, SQL name.
    const fn row(self) -> (u32, i16, &'static str, &'static str) {
        match self {
            PgType::Bool => (16, 1, "bool", "boolean"),
            PgType::Bytea => (17, -1, "bytea", "bytea"),
            PgType::Char => (18, 1, "char", "\"char\""),
            PgType::Name => (19, 64, "name", "name"),
            PgType::Int8 => (20, 8, "int8", "bigint"),
            PgType::Int2 => (21, 2, "int2", "smallint"),
            PgType::Int4 => (23, 4, "int4", "integer"),
            PgType::Text => (25, -1, "text", "text"),
            PgType::Oid => (26, 4, "oid", "oid"),
            PgType::Json => (114, -1, "json", "json"),
            PgType::Float4 => (700, 4, "float4", "real"),
            PgType::Float8 => (701, 8, "float8", "double precision"),
            PgType::Bpchar => (1042, -1, "bpchar", "character"),
            PgType::Varchar => (1043, -1, "varchar", "character varying"),
            PgType::Date => (1082, 4, "date", "date"),
            PgType::Time => (1083, 8, "time", "time without time zone"),
            PgType::Timestamp => (1114, 8, "timestamp", "timestamp without time zone"),
            PgType::Timestamptz => (1184, 8, "timestamptz", "timestamp with time zone"),
            PgType::Numeric => (1700, -1, "numeric", "numeric"),
            PgType::Uuid => (2950, 16, "uuid", "uuid"),
            PgType::Jsonb => (3802, -1, "jsonb", "jsonb"),
        }
    }

    /// The OID clients know it by.
    pub const fn oid(self) -> u32 {
        self.row().0
    }

    /// Bytes of a value; -1 if that varies.
    pub const fn length(self) -> i16 {
        self.row().1
    }

    /// Its `typname`: `int8`.
    pub const fn catalog_name(self) -> &'static str {
        self.row().2
    }

    /// Its name in SQL: `bigint`.
    pub const fn sql_name(self) -> &'static str {
        self.row().3
    }

    /// The type with that OID.
    pub fn by_oid(oid: u32) -> Option<PgType> {
        Self::ALL.into_iter().find(|known| known.oid() == oid)
    }

    /// The type that a name or alias in SQL means (`varchar`, `double precision`), without modifiers.
    pub fn by_name(name: &str) -> Option<PgType> {
        let name = name.to_ascii_lowercase();
        let alias = match name.as_str() {
            "decimal" | "dec" => PgType::Numeric,
            "int" | "serial" | "serial4" => PgType::Int4,
            "bigserial" | "serial8" => PgType::Int8,
            "smallserial" | "serial2" => PgType::Int2,
            "float" => PgType::Float8,
            "char" => PgType::Bpchar,
            "char varying" => PgType::Varchar,
            "timestamp" => PgType::Timestamp,
            "time" => PgType::Time,
            _ => {
                return Self::ALL
                    .into_iter()
                    .find(|known| known.catalog_name() == name || known.sql_name() == name);
            }
        };
        Some(alias)
    }

    /// The type that a column declared so in SQLite's schema is reported with.
    ///
    /// SQLite keeps 64-bit integers and doubles whatever the declaration, so the types that promise
    /// less (`integer`, `real`) are widened: no stored value can fail to be sent. A declaration that says
    /// nothing to PostgreSQL follows SQLite's own affinity rules. None: a column without declaration, or of
    /// SQLite's `NUMERIC` affinity without PostgreSQL's name for it; its values have types of their own.
    pub fn of_declared(declared: &str) -> Option<PgType> {
        let upper = declared.to_ascii_uppercase();
        let base = upper.split('(').next().unwrap_or_default().trim();
        let has = |part: &str| upper.contains(part);
        let exact = match base {
            "BOOL" | "BOOLEAN" => PgType::Bool,
            "BYTEA" => PgType::Bytea,
            "NAME" => PgType::Name,
            "OID" => PgType::Oid,
            "JSON" => PgType::Json,
            "JSONB" => PgType::Jsonb,
            "UUID" => PgType::Uuid,
            "DATE" => PgType::Date,
            "TIME" => PgType::Time,
            "DATETIME" => PgType::Timestamp,
            "NUMERIC" | "DECIMAL" | "DEC" => PgType::Numeric,
            "CHAR" | "CHARACTER" | "BPCHAR" => PgType::Bpchar,
            "VARCHAR" | "CHARACTER VARYING" | "CHAR VARYING" => PgType::Varchar,
            "SMALLSERIAL" | "SERIAL" | "BIGSERIAL" => PgType::Int8,
            _ if base.starts_with("TIMESTAMPTZ") => PgType::Timestamptz,
            _ if base.starts_with("TIMESTAMP") && has("WITH TIME ZONE") => PgType::Timestamptz,
            _ if base.starts_with("TIMESTAMP") => PgType::Timestamp,
            // From here on: SQLite's rules, in SQLite's order.
            _ if has("INT") => PgType::Int8,
            _ if has("CHAR") || has("CLOB") || has("TEXT") => PgType::Text,
            _ if has("BLOB") => PgType::Bytea,
            _ if has("REAL") || has("FLOA") || has("DOUB") => PgType::Float8,
            _ => return None,
        };
        Some(exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_oid_and_name() {
        for known in PgType::ALL {
            assert_eq!(PgType::by_oid(known.oid()), Some(known));
            if known != PgType::Char {
                assert_eq!(PgType::by_name(known.catalog_name()), Some(known));
            }
            assert_eq!(PgType::by_name(known.sql_name()), Some(known));
        }
        assert_eq!(PgType::by_name("hstore"), None);
    }

    #[test]
    fn declarations_are_read_as_sqlite_keeps_them() {
        for (declared, expected) in [
            ("INTEGER", Some(PgType::Int8)),
            ("smallint", Some(PgType::Int8)),
            ("varchar(20)", Some(PgType::Varchar)),
            ("NATIVE CHARACTER(70)", Some(PgType::Text)),
            ("numeric(10, 2)", Some(PgType::Numeric)),
            ("real", Some(PgType::Float8)),
            ("timestamp(3) with time zone", Some(PgType::Timestamptz)),
            ("timestamp without time zone", Some(PgType::Timestamp)),
            ("BLOB", Some(PgType::Bytea)),
            ("", None),
            ("STRING", None),
        ] {
            assert_eq!(PgType::of_declared(declared), expected, "{declared}");
        }
    }
}
