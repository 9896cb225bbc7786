//! What operators write, and what they are told.

use super::*;

fn read(text: &str) -> Result<Config, Mistakes> {
    Config::from_table(&text.parse().expect("the test's TOML"))
}

fn mistakes(text: &str) -> Vec<String> {
    read(text).expect_err("a configuration with mistakes").0
}

#[test]
fn an_empty_file_is_a_configuration() {
    let config = read("").unwrap();
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/vamos"));
    assert_eq!(config.enforcement, Enforcement::Strict);
    assert!(config.vms.is_empty());
}

#[test]
fn everything_can_be_said() {
    let config = read(
        r#"
        state_dir = "/a"
        run_dir = "/b"
        cell_binary = "/c/vamos-cell"
        sandbox = "best-effort"
        cells = { memory_bytes = 67108864, uid_first = 2000000 }
        control = { allowed_uids = [1000] }
        [[service]]
        name = "catalog"
        kind = "sql"
        [[vm]]
        name = "web-1"
        cid = 3
        [[binding]]
        vm = "web-1"
        service = "catalog"
        door = { postgres = "127.0.0.1:5432" }
        policy = { read_only = true, statement_timeout_ms = 100 }
        quota = { max_sessions = 5, max_bytes = 10485760 }
        "#,
    )
    .unwrap();
    assert_eq!(config.vms[0].cid, Some(GuestCid(3)));
    assert_eq!(config.cells.uid_first, 2_000_000);
    assert_eq!(config.bindings[0].door["postgres"], "127.0.0.1:5432");
    assert!(config.bindings[0].policy.read_only);
    assert_eq!(config.bindings[0].quota.max_sessions, 5);
}

#[test]
fn every_mistake_is_reported_at_once() {
    let found = mistakes(
        r#"
        state_dir = "relative"
        sandbox = "off"
        colour = "blue"
        [[service]]
        name = "Catalog"
        kind = "sql"
        [[service]]
        name = "files"
        kind = "nfs"
        [[vm]]
        name = "web-1"
        cid = 2
        memory = 4
        [[vm]]
        [[binding]]
        vm = "web-1"
        service = "nowhere"
        policy = { statement_timeout_ms = "1s" }
        quota = { sessions = 4 }
        "#,
    );
    let expected = [
        "state_dir must be an absolute path, not relative",
        "sandbox = \"off\" is neither",
        "service #1: \"Catalog\" is not a service name",
        "service #2: \"nfs\" is not a kind of service",
        "vm #1: cid = 2 is not from 3",
        "vm #1: unknown field \"memory\"",
        "vm #2: name is missing",
        "binding #1.policy: statement_timeout_ms must be a whole number, not string",
        "binding #1.quota: unknown field \"sessions\"",
        "there is no [[service]] nowhere",
        "unknown field \"colour\"",
    ];
    for wanted in expected {
        assert!(found.iter().any(|mistake| mistake.contains(wanted)), "{wanted:?} not in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn duplicates_are_named() {
    let found = mistakes(
        r#"
        [[service]]
        name = "a"
        kind = "sql"
        [[service]]
        name = "a"
        kind = "sql"
        [[vm]]
        name = "web"
        cid = 7
        [[vm]]
        name = "web"
        cid = 7
        [[binding]]
        vm = "web"
        service = "a"
        [[binding]]
        vm = "web"
        service = "a"
        "#,
    );
    let expected = [
        "service a is declared twice",
        "vm web is declared twice",
        "cid 7 is declared twice",
        "binding of web to a is declared twice",
    ];
    assert_eq!(found, expected);
}

#[test]
fn tcp_without_mutual_tls_is_refused() {
    let found = mistakes("[control.tcp]\nlisten = \"0.0.0.0:7000\"\ncertificate = \"/c\"\nkey = \"/k\"");
    assert_eq!(found, ["control.tcp: client_authority is missing"]);
}
