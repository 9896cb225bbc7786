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
    /// `int2vector`: column numbers in the catalogue.
    Int2Vector,
    /// `oidvector`: OIDs in the catalogue.
    OidVector,
    /// `regclass`: a relation by name.
    Regclass,
    /// `regtype`: a type by name.
    Regtype,
    /// `boolean[]`. Arrays occur in the catalogue only, in PostgreSQL's text form.
    BoolArray,
    /// `"char"[]`.
    CharArray,
    /// `name[]`.
    NameArray,
    /// `smallint[]`.
    Int2Array,
    /// `integer[]`.
    Int4Array,
    /// `text[]`.
    TextArray,
    /// `bigint[]`.
    Int8Array,
    /// `oid[]`.
    OidArray,
}

impl PgType {
    /// Every type.
    pub const ALL: [PgType; 33] = [
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
        PgType::Int2Vector,
        PgType::OidVector,
        PgType::Regclass,
        PgType::Regtype,
        PgType::BoolArray,
        PgType::CharArray,
        PgType::NameArray,
        PgType::Int2Array,
        PgType::Int4Array,
        PgType::TextArray,
        PgType::Int8Array,
        PgType::OidArray,
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
            PgType::Int2Vector => (22, -1, "int2vector", "int2vector"),
            PgType::OidVector => (30, -1, "oidvector", "oidvector"),
            PgType::Regclass => (2205, 4, "regclass", "regclass"),
            PgType::Regtype => (2206, 4, "regtype", "regtype"),
            PgType::BoolArray => (1000, -1, "_bool", "boolean[]"),
            PgType::CharArray => (1002, -1, "_char", "\"char\"[]"),
            PgType::NameArray => (1003, -1, "_name", "name[]"),
            PgType::Int2Array => (1005, -1, "_int2", "smallint[]"),
            PgType::Int4Array => (1007, -1, "_int4", "integer[]"),
            PgType::TextArray => (1009, -1, "_text", "text[]"),
            PgType::Int8Array => (1016, -1, "_int8", "bigint[]"),
            PgType::OidArray => (1028, -1, "_oid", "oid[]"),
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

    /// The type whose values are arrays of this one's.
    pub const fn array(self) -> Option<PgType> {
        match self {
            PgType::Bool => Some(PgType::BoolArray),
            PgType::Char => Some(PgType::CharArray),
            PgType::Name => Some(PgType::NameArray),
            PgType::Int2 => Some(PgType::Int2Array),
            PgType::Int4 => Some(PgType::Int4Array),
            PgType::Text | PgType::Varchar => Some(PgType::TextArray),
            PgType::Int8 => Some(PgType::Int8Array),
            PgType::Oid => Some(PgType::OidArray),
            _ => None,
        }
    }

    /// `pg_type.typcategory`.
    pub const fn category(self) -> char {
        match self {
            PgType::Bool => 'B',
            PgType::Char => 'Z',
            PgType::Name | PgType::Text | PgType::Bpchar | PgType::Varchar => 'S',
            PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Oid | PgType::Numeric => 'N',
            PgType::Float4 | PgType::Float8 | PgType::Regclass | PgType::Regtype => 'N',
            PgType::Date | PgType::Time | PgType::Timestamp | PgType::Timestamptz => 'D',
            PgType::Bytea | PgType::Json | PgType::Jsonb | PgType::Uuid => 'U',
            _ => 'A',
        }
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
        if let Some((_, exact)) = DECLARED.iter().find(|(name, _)| *name == base) {
            return Some(*exact);
        }
        if base.starts_with("TIMESTAMP") {
            let zone = base.starts_with("TIMESTAMPTZ") || upper.contains("WITH TIME ZONE");
            return Some(if zone { PgType::Timestamptz } else { PgType::Timestamp });
        }
        AFFINITIES.iter().find(|(part, _)| upper.contains(part)).map(|(_, affinity)| *affinity)
    }
}

/// Declarations that are a type's name, but for their modifiers.
pub(super) const DECLARED: &[(&str, PgType)] = &[
    ("BOOL", PgType::Bool),
    ("BOOLEAN", PgType::Bool),
    ("BYTEA", PgType::Bytea),
    ("NAME", PgType::Name),
    ("OID", PgType::Oid),
    ("JSON", PgType::Json),
    ("JSONB", PgType::Jsonb),
    ("UUID", PgType::Uuid),
    ("DATE", PgType::Date),
    ("TIME", PgType::Time),
    ("DATETIME", PgType::Timestamp),
    ("NUMERIC", PgType::Numeric),
    ("DECIMAL", PgType::Numeric),
    ("DEC", PgType::Numeric),
    ("CHAR", PgType::Bpchar),
    ("CHARACTER", PgType::Bpchar),
    ("BPCHAR", PgType::Bpchar),
    ("VARCHAR", PgType::Varchar),
    ("CHARACTER VARYING", PgType::Varchar),
    ("CHAR VARYING", PgType::Varchar),
    ("SMALLSERIAL", PgType::Int8),
    ("SERIAL", PgType::Int8),
    ("BIGSERIAL", PgType::Int8),
];

/// SQLite's rules of affinity, in SQLite's order.
pub(super) const AFFINITIES: &[(&str, PgType)] = &[
    ("INT", PgType::Int8),
    ("CHAR", PgType::Text),
    ("CLOB", PgType::Text),
    ("TEXT", PgType::Text),
    ("BLOB", PgType::Bytea),
    ("REAL", PgType::Float8),
    ("FLOA", PgType::Float8),
    ("DOUB", PgType::Float8),
];

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
