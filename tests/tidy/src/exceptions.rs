//! Where a rule gives way, and why. An exception that nothing needs any more is itself a violation.

/// One file that may break one rule.
#[derive(Debug, Clone, Copy)]
pub struct Exception {
    /// Name of the rule, as in [`crate::rules::RULES`].
    pub rule: &'static str,
    /// Path of the file.
    pub path: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// All of them.
pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        rule: "limits",
        path: "proto/src/frame.rs",
        reason: "SEQUENCE_MAX is the width of a field of the header, not a limit someone chose",
    },
    Exception {
        rule: "words",
        path: "platform/sandbox/tests/evil.rs",
        reason: "the evil cell tries to read the home of the superuser, which is where it is on every machine",
    },
];
