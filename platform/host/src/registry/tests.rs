//! What the registry promises, on a real file.

use std::path::PathBuf;

use vamos_proto::id::VsockPort;

use super::*;
use crate::config::Config;
use crate::names::ServiceKind;

const UIDS: UidRange = UidRange { first: 5000, count: 3 };

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registry.db");
    (directory, file)
}

fn vm(name: &str) -> VmId {
    VmId::new(name).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn config(text: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vamos.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(&file).unwrap()
}

#[test]
fn what_was_created_is_there_after_a_restart() {
    let (_keep, file) = directory();
    let mut registry = Registry::open(&file, UIDS).unwrap();
    registry.create_vm(&vm("web-1"), None, false).unwrap();
    registry.register_service(&service("catalog"), ServiceKind::Sql, false).unwrap();
    let mut terms = Terms::default();
    terms.quota.max_sessions = 9;
    terms.door.insert("postgres".into(), "127.0.0.1:5432".into());
    let bound = registry.bind(&vm("web-1"), &service("catalog"), &terms, false).unwrap();
    assert_eq!(bound.port, VsockPort::FIRST_BINDING);
    drop(registry);
    let registry = Registry::open(&file, UIDS).unwrap();
    assert_eq!(registry.vms().unwrap()[0].cid, GuestCid::FIRST);
    assert_eq!(registry.bindings(None).unwrap(), [bound]);
}

#[test]
fn names_and_cids_are_given_once() {
    let (_keep, file) = directory();
    let mut registry = Registry::open(&file, UIDS).unwrap();
    registry.create_vm(&vm("a"), Some(GuestCid(7)), false).unwrap();
    let twice = registry.create_vm(&vm("a"), None, false).unwrap_err();
    assert!(matches!(twice, RegistryError::Exists { .. }));
    let taken = registry.create_vm(&vm("b"), Some(GuestCid(7)), false).unwrap_err();
    assert_eq!(taken.to_string(), "cid 7 belongs to VM a");
    let reserved = registry.create_vm(&vm("b"), Some(GuestCid(2)), false).unwrap_err();
    assert!(matches!(reserved, RegistryError::CidReserved(GuestCid(2))));
}

#[test]
fn a_uid_stays_with_its_volume_until_that_is_purged() {
    let (_keep, file) = directory();
    let mut registry = Registry::open(&file, UIDS).unwrap();
    let first = registry.create_vm(&vm("a"), None, false).unwrap().uid;
    registry.delete_vm(&vm("a"), false).unwrap();
    assert_ne!(registry.create_vm(&vm("b"), None, false).unwrap().uid, first);
    assert_eq!(registry.create_vm(&vm("a"), None, false).unwrap().uid, first);
    registry.create_vm(&vm("c"), None, false).unwrap();
    let full = registry.create_vm(&vm("d"), None, false).unwrap_err();
    assert!(matches!(full, RegistryError::Full { what: "cell identities", .. }));
    registry.delete_vm(&vm("a"), true).unwrap();
    assert_eq!(registry.create_vm(&vm("d"), None, false).unwrap().uid, first);
}

#[test]
fn a_bound_service_is_not_removed() {
    let (_keep, file) = directory();
    let mut registry = Registry::open(&file, UIDS).unwrap();
    registry.create_vm(&vm("a"), None, false).unwrap();
    registry.register_service(&service("s"), ServiceKind::Sql, false).unwrap();
    registry.bind(&vm("a"), &service("s"), &Terms::default(), false).unwrap();
    let refused = registry.remove_service(&service("s")).unwrap_err();
    assert_eq!(refused.to_string(), "service s is bound to a");
    registry.unbind(&vm("a"), &service("s")).unwrap();
    registry.remove_service(&service("s")).unwrap();
}

#[test]
fn the_file_decides_over_what_it_declared_and_nothing_else() {
    let (_keep, file) = directory();
    let mut registry = Registry::open(&file, UIDS).unwrap();
    registry.create_vm(&vm("mine"), None, false).unwrap();
    let first = "[[service]]\nname='s'\nkind='sql'\n[[vm]]\nname='a'\n[[binding]]\nvm='a'\nservice='s'\n";
    registry.reconcile(&config(first)).unwrap();
    registry.reconcile(&config(first)).unwrap();
    assert_eq!(registry.vms().unwrap().len(), 2);
    registry.reconcile(&config("[[vm]]\nname='b'\n")).unwrap();
    let names: Vec<_> = registry.vms().unwrap().into_iter().map(|row| row.name.to_string()).collect();
    assert_eq!(names, ["b", "mine"]);
    assert!(registry.services().unwrap().is_empty());
}

#[test]
fn a_conflict_with_the_file_changes_nothing() {
    let (_keep, file) = directory();
    let mut registry = Registry::open(&file, UIDS).unwrap();
    registry.create_vm(&vm("mine"), Some(GuestCid(9)), false).unwrap();
    let conflict = config("[[vm]]\nname='a'\n[[vm]]\nname='b'\ncid=9\n");
    let error = registry.reconcile(&conflict).unwrap_err();
    assert_eq!(error.to_string(), "cid 9 belongs to VM mine");
    assert_eq!(registry.vms().unwrap().len(), 1);
}

#[test]
fn t25_a_file_of_another_version_or_program_is_left_alone() {
    let (_keep, file) = directory();
    drop(Registry::open(&file, UIDS).unwrap());
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 9999).unwrap();
    let newer = Registry::open(&file, UIDS).unwrap_err();
    assert!(matches!(newer, RegistryError::Version { found: 9999, .. }));
    Connection::open(&file).unwrap().pragma_update(None, "application_id", 1).unwrap();
    assert!(matches!(Registry::open(&file, UIDS), Err(RegistryError::NotOurs)));
}

#[test]
fn a_file_of_version_1_is_brought_up_to_date() {
    let (_keep, file) = directory();
    let old = Connection::open(&file).unwrap();
    old.execute_batch(&format!(
        "{}; PRAGMA application_id = {}; PRAGMA user_version = 1",
        schema::TABLES,
        schema::APPLICATION
    ))
    .unwrap();
    old.execute_batch("INSERT INTO vm VALUES ('a', 7, 0); INSERT INTO identity VALUES ('a', 1005, 3)")
        .unwrap();
    drop(old);
    let read = || Registry::open(&file, UIDS).unwrap().vm(&vm("a")).unwrap();
    let first = read();
    assert_eq!((first.cid, first.uid, first.generation), (GuestCid(7), 1005, 3));
    assert_ne!(first.secret.0, [0; 16]);
    assert_eq!(first, read(), "the secret stays");
}
