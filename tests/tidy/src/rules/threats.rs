//! Every bad input and fault of the threat model has a test that is named after its number.
//!
//! The name of a test for row 4 of group A begins with `a04_`; a row may have many tests, in any
//! package. Rows of later parts join the table with the part that must withstand them.

use crate::source::words;
use crate::{Tree, Violation};

/// The rows that must have a test: number, and what the test shows.
const ROWS: &[(&str, &str)] = &[
    ("a01", "a descriptor cycle: chain rejected, head returned with length 0"),
    ("a02", "indirect inside indirect, indirect of a bad or huge size: rejected, nothing allocated"),
    ("a03", "indirect of length 0, descriptors of length 0: rejected"),
    ("a04", "avail.idx jumps by more than the queue size: queue broken until reset, no spin"),
    ("a05", "descriptor across a region's end, in a hole, around 2^64: rejected"),
    ("a06", "write-only descriptor in TX, read-only in RX: rejected"),
    ("a07", "head index out of range, same head twice in flight: rejected"),
    ("a08", "payload changed after the kick: the parsed copy is consistent"),
    ("a09", "kick storm on an empty ring: no busy core"),
    ("a10", "SET_VRING_NUM 0, 3, 65536 or after enable: error, device alive"),
    ("a11", "SET_MEM_TABLE during a request, overlapping, too many slots, file shorter than it says"),
    ("a12", "messages with 32 fds or a cut header, thousands of times: no fd leaks"),
    ("a13", "garbage in used_event: no lost wake-up, no storm"),
    ("b14", "REQUEST flood on all ports: cap, then RST, memory bounded"),
    ("b15", "RW beyond the credit: RST, bytes never dropped silently"),
    ("b16", "buf_alloc shrunk below what is in flight, fwd_cnt beyond tx_cnt: credit 0"),
    ("b17", "buf_alloc of 4 GiB and never a read: the local cap holds"),
    ("b18", "CREDIT_REQUEST flood without RX buffers: bounded queue"),
    ("b19", "RESPONSE, RW, SHUTDOWN for an unknown connection: RST"),
    ("b20", "forged source or destination CID: dropped and counted"),
    ("b21", "operation 0 or above 7, SEQPACKET, length beyond the descriptor: rejected"),
    ("b22", "RST during a write of the host: no panic"),
    ("c23", "frame length 0, 2^32-1, more than is left: typed error, session closed"),
    ("c24", "unknown version, kind, flags: typed error"),
    ("c25", "nesting of 10,000: depth error"),
    ("c26", "another request under a number that is recorded: refused, nothing executed"),
    ("c27", "gap in the sequence, sequence at its maximum: protocol error"),
    ("c28", "a session of another generation: fenced"),
    ("c29", "a frame at one byte a second: deadline"),
    ("c30", "a million sessions opened: quota"),
    ("d31", "ATTACH literal, bound, expression; VACUUM INTO; DETACH main: refused, no file"),
    ("d32", "load_extension, fts3_tokenizer, readfile, dbstat, sqlite_dbpage, writable_schema: denied"),
    ("d33", "PRAGMA synchronous, journal_mode, locking_mode, hard_heap_limit: durability unchanged"),
    ("d34", "endless recursive CTE, cross join of eight: cancelled by the deadline"),
    ("d35", "zeroblob, printf, replace, group_concat, json blow-ups: refused within 2 s"),
    ("d36", "LIKE with a huge pattern, 2,000 UNION arms, expression depth 10,000: limit error"),
    ("d37", "names in _vamos_ tables, triggers on them, INSERT into them: denied"),
    ("d38", "trigger or view that calls a function of the host: refused"),
    ("d39", "NUL in text, lone surrogates, invalid UTF-8, NaN, infinities, smallest integer: as natively"),
    ("d40", "BEGIN, then silence with the write lock: idle-in-transaction timeout, 25P03"),
    ("e41", "length below 4, negative field length, StartupMessage too long or without NUL: 08P01, close"),
    ("e42", "bytes pipelined after SSLRequest: close"),
    ("e43", "Bind with 65,536 parameters, wrong count, too large: ErrorResponse, in sync after Sync"),
    ("e44", "CancelRequest with a wrong key or another's pid: ignored"),
    ("e45", "cell killed between Parse and Execute, in COPY, with an open portal, after COMMIT"),
    ("h54", "a request that two servers read differently: refused, the connection closed, nothing passed on"),
    ("h55", "what follows an upgrade: not read before its answer is known"),
    ("h56", "a body that nobody reads: drained, or the connection closed"),
    ("h57", "a target with several meanings: refused"),
    ("h58", "what a client claims of itself: replaced"),
    ("h59", "requests taken back at once, by the client or by us at its will: the connection ends"),
    (
        "h60",
        "frames that bring nothing, fields without end, bombs, clients that wait: a budget, then the end",
    ),
    ("k66", "ENOSPC at every write: 53100, no acknowledgement, recovers when space returns"),
    ("k67", "EIO at every call: no acknowledgement after a failed fsync, which is never retried"),
    ("k68", "torn, lost, reordered writes, lost directory entries: acknowledged writes are present"),
    ("k69", "killed at every named point, during recovery too: exactly once"),
    ("k70", "a clock that is set, stands still or jumps: leases go by none that can be"),
    ("k71", "memory limit, OOM kill, failed allocations: the cell dies alone"),
    ("k72", "EMFILE, RLIMIT_NPROC, RLIMIT_FSIZE: new work refused, nothing dies, recovers"),
    ("k73", "a VM that moves, in the midst of a commit, with either side dying: one owner, nothing lost"),
    ("k74", "a volume restored, cloned, claimed twice: sessions and hosts of before are fenced off"),
];

/// First and last row of each group; `t` is the table of threats, the others are bad inputs and faults.
const GROUPS: &[(char, u32, u32)] = &[
    ('t', 1, 27),
    ('a', 1, 13),
    ('b', 14, 22),
    ('c', 23, 30),
    ('d', 31, 40),
    ('e', 41, 45),
    ('f', 46, 48),
    ('g', 49, 53),
    ('h', 54, 60),
    ('i', 61, 61),
    ('j', 62, 65),
    ('k', 66, 74),
];

/// A test for every row of [`ROWS`]; numbers that fit their group.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let tests: Vec<(String, usize, String)> = tree
        .rust()
        .flat_map(|(file, source)| {
            let lines = source.numbered().filter(|(_, line)| line.test);
            lines.filter_map(|(number, line)| {
                Some((file.path.clone(), number, function(&line.code)?.to_owned()))
            })
        })
        .collect();
    let missing = ROWS.iter().filter(|(row, _)| !tests.iter().any(|(_, _, name)| prefix(name) == Some(row)));
    let mut violations: Vec<Violation> = missing
        .map(|(row, shows)| {
            Violation::new("THREATS", 0, format!("row {row} has no test"), format!("fn {row}_..: {shows}"))
        })
        .collect();
    for (path, number, name) in &tests {
        let Some(row) = prefix(name) else { continue };
        let fits = GROUPS.iter().any(|(group, first, last)| {
            row.starts_with(*group) && row[1..].parse().is_ok_and(|row: u32| (*first..=*last).contains(&row))
        });
        if !fits {
            let what = format!("{name} is named after a row that does not exist");
            violations.push(Violation::new(path, *number, what, "the number of the row in the threat model"));
        }
    }
    violations
}

/// Name of the function that a line declares.
fn function(code: &str) -> Option<&str> {
    words(code).skip_while(|word| *word != "fn").nth(1)
}

/// `a04` of `a04_avail_jumps`, if the name has that form.
fn prefix(name: &str) -> Option<&str> {
    let (row, rest) = name.split_once('_')?;
    let digits =
        row.get(1..).filter(|digits| digits.len() == 2 && digits.chars().all(|c| c.is_ascii_digit()));
    (row.starts_with(|c: char| c.is_ascii_lowercase()) && digits.is_some() && !rest.is_empty()).then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(text: &str) -> Vec<String> {
        check(&Tree::new([("a/tests/b.rs", text)])).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn a_row_without_a_test_is_caught() {
        let all: String = ROWS.iter().map(|(row, _)| format!("#[test]\nfn {row}_holds() {{}}\n")).collect();
        assert_eq!(planted(&all), [""; 0]);
        assert_eq!(planted(&all.replace("fn b20_", "fn b21_")), ["row b20 has no test"]);
        assert_eq!(planted(&all.replace("fn c30_holds", "// fn c30_holds")), ["row c30 has no test"]);
    }

    #[test]
    fn a_function_that_is_not_a_test_does_not_count() {
        let tree = Tree::new([("a/src/lib.rs", "fn a01_holds() {}")]);
        assert_eq!(check(&tree).len(), ROWS.len());
    }

    #[test]
    fn a_number_outside_its_group_is_caught() {
        let found = planted("#[test]\nfn a14_holds() {}");
        assert_eq!(
            found.last().map(String::as_str),
            Some("a14_holds is named after a row that does not exist")
        );
    }
}
