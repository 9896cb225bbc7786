//! `unsafe` has its places, and each block has a reason of its own.

use std::collections::HashMap;

use crate::source::{Source, has_word};
use crate::{Tree, Violation};

/// Packages that may hold unsafe code. `tests/faults` is SQLite's operating system in tests: a VFS and an
/// allocator, which SQLite takes as C functions; `sql-pv/checksum` is a VFS, too. `tests/seeded` puts its own `fsync` before the C library's.
const PACKAGES: &[&str] = &[
    "platform/device",
    "platform/sandbox",
    "guest-agents/link",
    "guest-agents/sqlite3",
    "sql-pv/checksum",
    "tests/faults",
    "tests/seeded",
];

/// How often one reason may serve: a reason that fits everywhere explains nothing.
const SAME_REASON_MAX: usize = 3;

/// Types that see guest memory change under them; only these packages may name them.
const VOLATILE: &[&str] =
    &["VolatileSlice", "VolatileMemory", "GuestMemory", "GuestMemoryMmap", "GuestMemoryAtomic"];
const VOLATILE_PACKAGES: &[&str] = &["platform/device", "guest-agents/link"];

/// Unsafe code only in [`PACKAGES`], a specific SAFETY comment at each place, guest memory in one place.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut reasons: HashMap<String, Vec<(String, usize)>> = HashMap::new();
    for (file, source) in tree.rust() {
        let (path, package) = (&file.path, file.package());
        for (number, line) in source.numbered() {
            if !VOLATILE_PACKAGES.contains(&package)
                && let Some(name) = VOLATILE.iter().find(|name| has_word(&line.code, name))
            {
                let what = format!("names {name}");
                violations.push(Violation::new(
                    path,
                    number,
                    what,
                    "owned bytes: copy once, then parse the copy",
                ));
            }
            if has_word(&line.code, "unsafe") && !PACKAGES.contains(&package) {
                let instead = format!("a safe function of {}, or of rustix", PACKAGES.join(", "));
                violations.push(Violation::new(path, number, "has unsafe code", instead));
            } else if opens(&line.code) {
                match reason(source, number) {
                    Some(text) => reasons.entry(text).or_default().push((path.clone(), number)),
                    None => violations.push(Violation::new(
                        path,
                        number,
                        "has unsafe code without a reason",
                        "a comment above it: // SAFETY: why this very use is sound",
                    )),
                }
            }
        }
    }
    for (reason, places) in reasons.into_iter().filter(|(_, places)| places.len() > SAME_REASON_MAX) {
        let (path, number) = &places[SAME_REASON_MAX];
        let what = format!("is place {} with the reason {reason:?}", places.len());
        violations.push(Violation::new(
            path,
            *number,
            what,
            "one safe function around the use, with one reason",
        ));
    }
    violations
}

/// Whether the line opens an unsafe block or implements an unsafe trait.
fn opens(code: &str) -> bool {
    let mut rest = code;
    while let Some(at) = rest.find("unsafe") {
        let after = rest[at + 6..].trim_start();
        if after.starts_with('{') || after.starts_with("impl") {
            return true;
        }
        rest = &rest[at + 6..];
    }
    false
}

/// The SAFETY comment of the statement that line `number` is part of.
fn reason(source: &Source, number: usize) -> Option<String> {
    let mut at = number - 1;
    // Up to the statement's first line: the one above it ends another statement or opens a block.
    while at > 0 && source.lines[at - 1].is_code() {
        let above = source.lines[at - 1].code.trim_end();
        if above.ends_with([';', '{', '}']) {
            break;
        }
        at -= 1;
    }
    let own = source.lines[number - 1].comment.clone();
    let mut comments: Vec<String> = if own.is_empty() { Vec::new() } else { vec![own] };
    while at > 0 && source.lines[at - 1].is_comment() {
        comments.insert(0, source.lines[at - 1].comment.clone());
        at -= 1;
    }
    let text: Vec<&str> = comments.iter().map(|comment| comment.trim_start_matches(['/', ' '])).collect();
    let (_, reason) =
        text.join(" ").split_once("SAFETY:").map(|(a, b)| (a.to_owned(), b.trim().to_owned()))?;
    (!reason.is_empty()).then_some(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        check(&Tree::new([(path, text)])).into_iter().map(|violation| violation.what).collect()
    }

    const RING: &str = "platform/device/src/ring.rs";

    #[test]
    fn unsafe_in_another_package_is_caught() {
        let text = "// SAFETY: it is.\nlet a = unsafe { b() };";
        assert_eq!(whats("sql-pv/server/src/lib.rs", text), ["has unsafe code"]);
        assert_eq!(whats(RING, text), [""; 0]);
        assert_eq!(whats("sql-pv/server/src/lib.rs", "// unsafe\nlet a = \"unsafe {\";"), [""; 0]);
    }

    #[test]
    fn a_block_without_a_reason_is_caught() {
        assert_eq!(whats(RING, "let a = unsafe { b() };"), ["has unsafe code without a reason"]);
        assert_eq!(whats(RING, "// SAFETY:\nlet a = unsafe { b() };"), ["has unsafe code without a reason"]);
        assert_eq!(whats(RING, "unsafe impl Send for A {}"), ["has unsafe code without a reason"]);
        let one_reason_two_blocks = "// SAFETY: a.\nlet a = unsafe { b() };\nlet c = unsafe { d() };";
        assert_eq!(whats(RING, one_reason_two_blocks).len(), 1);
        assert_eq!(whats(RING, "unsafe fn a() {}"), [""; 0]);
    }

    #[test]
    fn a_reason_stands_above_its_statement() {
        assert_eq!(
            whats(RING, "// SAFETY: the\n// map lives.\nlet a = b(\n    c,\n    unsafe { d() },\n);"),
            [""; 0]
        );
        assert_eq!(whats(RING, "let a = unsafe { b() }; // SAFETY: the map lives."), [""; 0]);
    }

    #[test]
    fn a_reason_used_too_often_is_caught() {
        let often = "// SAFETY: it is fine.\nlet a = unsafe { b() };\n".repeat(SAME_REASON_MAX + 1);
        assert_eq!(whats(RING, &often), ["is place 4 with the reason \"it is fine.\""]);
    }

    #[test]
    fn guest_memory_elsewhere_is_caught() {
        assert_eq!(whats("sql-pv/server/src/lib.rs", "fn a(b: VolatileSlice) {}"), ["names VolatileSlice"]);
    }
}
