//! SQLite is built as `.cargo/config.toml` says: what must not be there is not.

use rusqlite::Connection;

#[test]
fn the_build_has_what_it_must_and_not_more() {
    let db = Connection::open_in_memory().unwrap();
    let mut statement = db.prepare("SELECT compile_options FROM pragma_compile_options").unwrap();
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let options: Vec<String> = rows.map(Result::unwrap).collect();
    let has = |name: &str| options.iter().any(|option| option == name);
    for wanted in [
        "OMIT_LOAD_EXTENSION",
        "OMIT_SHARED_CACHE",
        "OMIT_DESERIALIZE",
        "DQS=0",
        "TEMP_STORE=3",
        "DEFAULT_WAL_SYNCHRONOUS=2",
        "MAX_MMAP_SIZE=0",
        "ENABLE_FTS5",
        "ENABLE_RTREE",
        "ENABLE_MATH_FUNCTIONS",
        "ENABLE_COLUMN_METADATA",
    ] {
        assert!(has(wanted), "{wanted} is missing: {options:?}");
    }
    for banned in
        ["USE_URI", "ENABLE_LOAD_EXTENSION", "ENABLE_DBSTAT_VTAB", "ENABLE_FTS3", "ENABLE_DBPAGE_VTAB"]
    {
        assert!(!options.iter().any(|option| option.starts_with(banned)), "{banned}: {options:?}");
    }
    // These two are not among the options; what they do shows.
    let long: i64 = db.query_row("SELECT length(printf('%.2000000d', 1))", [], |row| row.get(0)).unwrap();
    assert!(long <= 100_001, "PRINTF_PRECISION_LIMIT: {long}");
    assert!(
        db.query_row("SELECT length(zeroblob(70000000) || 'x')", [], |row| row.get::<_, i64>(0)).is_err()
    );
    assert!(db.prepare("SELECT \"not a column\"").is_err(), "DQS");
}
