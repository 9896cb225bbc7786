//! What is damaged is never served, and its page is named.

use std::fs;

use rusqlite::Connection;
use vamos_sql_checksum::{Mismatch, RESERVED_BYTES, is_mismatch};

use crate::support::{PAGE, fill, found, known, log, open, read_all};

fn damaged(page: usize) -> Mismatch {
    Mismatch { page: page as u32, in_log: false }
}

#[test]
fn one_bit_of_any_page_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sound.db");
    fill(&path);
    read_all(&path).unwrap();
    let sound = fs::read(&path).unwrap();
    for page in 1..=sound.len() / PAGE {
        // Over and over another place; never in the balance, which says nothing.
        let at = (page - 1) * PAGE + page * 577 % (PAGE - RESERVED_BYTES + 8);
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (page % 8);
        let path = directory.path().join(format!("{page}.db"));
        fs::write(&path, bytes).unwrap();
        assert_eq!(found(&path), damaged(page));
    }
}

#[test]
fn a_header_that_no_longer_speaks_of_checksums_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sound.db");
    fill(&path);
    let sound = fs::read(&path).unwrap();
    // The magic, the page size, the reserved bytes; and of the rest whatever.
    for (at, bit) in [(0, 0), (15, 7), (16, 4), (17, 0), (20, 4), (20, 0), (18, 0), (24, 3), (99, 1)] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << bit;
        let path = directory.path().join(format!("{at}-{bit}.db"));
        fs::write(&path, bytes).unwrap();
        assert_eq!(found(&path), damaged(1), "bit {bit} of byte {at}");
    }
}

#[test]
fn a_bit_in_a_row_or_in_the_midst_of_a_long_value_is_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    fill(&path);
    let mut bytes = fs::read(&path).unwrap();
    let row = format!("{:064}", 1_234);
    let row = bytes.windows(64).position(|window| window == row.as_bytes()).unwrap();
    // All of the page is the value's, but for the link and what is reserved.
    let is_value = |page: &[u8]| page[4..PAGE - RESERVED_BYTES].iter().all(|byte| *byte == b'0');
    let long = bytes.chunks(PAGE).position(is_value).unwrap();
    bytes[row + 40] ^= 1;
    bytes[long * PAGE + 2_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let db = open(&path);
    let select = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0));
    assert_eq!(select("SELECT x FROM long WHERE rowid = 2").unwrap(), "short");
    for (sql, page) in [("SELECT x FROM long", long), ("SELECT b FROM t WHERE a = 1234", row / PAGE)] {
        let error = select(sql).expect_err("damage was served");
        assert!(is_mismatch(&error), "{error:?}");
        assert_eq!(known(&path), damaged(page + 1));
    }
}

#[test]
fn a_page_elsewhere_or_never_written_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sound.db");
    fill(&path);
    let sound = fs::read(&path).unwrap();
    let (fifth, ninth) = (4 * PAGE..5 * PAGE, 8 * PAGE..9 * PAGE);
    let mut swapped = sound.clone();
    swapped[fifth.clone()].copy_from_slice(&sound[ninth.clone()]);
    swapped[ninth.clone()].copy_from_slice(&sound[fifth]);
    let mut lost = sound.clone();
    lost[ninth].fill(0);
    for (name, bytes, page) in [("swapped", swapped, 5), ("lost", lost, 9)] {
        let path = directory.path().join(format!("{name}.db"));
        fs::write(&path, bytes).unwrap();
        assert_eq!(found(&path), damaged(page), "{name}");
    }
}

#[test]
fn a_file_that_was_cut_is_damaged_also_while_a_log_tells_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    fill(&path);
    let writing = open(&path);
    writing.execute_batch("INSERT INTO t (b) VALUES ('in the log')").unwrap();
    let pages = fs::metadata(&path).unwrap().len() / PAGE as u64;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len((pages - 3) * PAGE as u64).unwrap();
    assert_eq!(found(&path), damaged(pages as usize - 2));
}

#[test]
fn a_bit_in_the_log_is_neither_served_nor_copied_into_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    fill(&path);
    let writing = open(&path);
    writing.execute_batch("INSERT INTO long VALUES ('a new value')").unwrap();
    let mut bytes = fs::read(log(&path)).unwrap();
    let at = bytes.windows(11).position(|window| window == b"a new value").unwrap();
    bytes[at] ^= 1;
    fs::write(log(&path), &bytes).unwrap();
    let before = fs::read(&path).unwrap();
    // The writer still has it in its memory; the log is what another one reads.
    let reading = open(&path);
    let error = reading.query_row("SELECT count(*) FROM long", [], |row| row.get::<_, i64>(0));
    assert!(is_mismatch(&error.expect_err("damage was served")));
    let frame = (at - 32) / (24 + PAGE) * (24 + PAGE) + 32;
    let page = u32::from_be_bytes(bytes[frame..frame + 4].try_into().unwrap());
    assert_eq!(known(&path), Mismatch { page, in_log: true });
    let copied = writing.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(0));
    assert!(is_mismatch(&copied.expect_err("damage was copied")));
    let after = fs::read(&path).unwrap();
    let page = (page as usize - 1) * PAGE..page as usize * PAGE;
    assert!(after.get(page.clone()).is_none_or(|after| Some(after) == before.get(page)));
}

/// Who writes without checksums leaves pages that cannot be told from damaged ones.
#[test]
fn what_another_program_wrote_into_the_database_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    fill(&path);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("UPDATE t SET b = 'x' WHERE a = 1000; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(other);
    found(&path);
}
