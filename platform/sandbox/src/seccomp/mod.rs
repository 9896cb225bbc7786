//! The list of system calls a confined process may make, and how it becomes a filter.
//!
//! What the list does not name kills the whole process: a thread that vanished would leave the others
//! limping. Two calls are answered with an error instead, because libraries ask for them and know what to
//! do without: see [`policy::ANSWERED`].

pub mod policy;

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use crate::Profile;
use policy::{ALLOWED, ANSWERED, Allowed, Arguments, EDGE};

/// Installs the filters on the calling thread, and so on every thread it starts.
pub(crate) fn install(profile: Profile) -> io::Result<String> {
    // Of several filters the strictest verdict holds, so the list itself lets the answered calls
    // through. It comes last: installing a filter is not on the list.
    for answered in ANSWERED {
        apply(&answering(answered.number, answered.errno)?)?;
    }
    let more = more(profile);
    apply(&allow_list(more)?)?;
    Ok(format!("{} system calls, the rest kills", ALLOWED.len() + more.len()))
}

fn apply(program: &BpfProgram) -> io::Result<()> {
    apply_filter(program).map_err(io::Error::other)
}

fn answering(number: i64, errno: i32) -> io::Result<BpfProgram> {
    let rules = BTreeMap::from([(number, Vec::new())]);
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()))
}

/// What this kind of process may do that a cell may not.
fn more(profile: Profile) -> &'static [Allowed] {
    match profile {
        Profile::Cell => &[],
        Profile::Edge => EDGE,
    }
}

fn allow_list(more: &[Allowed]) -> io::Result<BpfProgram> {
    let mut rules = BTreeMap::new();
    for allowed in ALLOWED.iter().chain(more) {
        rules.insert(allowed.number, conditions(&allowed.arguments)?);
    }
    for answered in ANSWERED {
        rules.insert(answered.number, Vec::new());
    }
    compile(rules, SeccompAction::KillProcess, SeccompAction::Allow)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    mismatch: SeccompAction,
    matched: SeccompAction,
) -> io::Result<BpfProgram> {
    let arch = TargetArch::try_from(ARCH).map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, mismatch, matched, arch).map_err(io::Error::other)?;
    BpfProgram::try_from(filter).map_err(io::Error::other)
}

/// An empty list of rules matches whatever the arguments are; several rules are alternatives.
fn conditions(arguments: &Arguments) -> io::Result<Vec<SeccompRule>> {
    let rule = |index, operator, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(io::Error::other)
    };
    match *arguments {
        Arguments::Any => Ok(Vec::new()),
        Arguments::OneOf { index, values } => {
            values.iter().map(|&value| rule(index, SeccompCmpOp::Eq, value)).collect()
        }
        Arguments::Bits { index, mask, value } => {
            Ok(vec![rule(index, SeccompCmpOp::MaskedEq(u64::from(mask)), u64::from(value))?])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ALLOWED_SYSCALLS_MAX;
    use std::collections::HashSet;

    #[test]
    fn every_line_says_who_needs_it_and_stands_once() {
        let mut seen = HashSet::new();
        for (name, number, reason) in ALLOWED
            .iter()
            .chain(EDGE)
            .map(|line| (line.name, line.number, line.reason))
            .chain(ANSWERED.iter().map(|line| (line.name, line.number, line.reason)))
        {
            assert!(reason.split_whitespace().count() >= 3, "{name}: say who needs it, not {reason:?}");
            assert!(seen.insert(number), "{name} stands twice");
        }
        let lines = ALLOWED.len() + EDGE.len();
        assert!(lines <= ALLOWED_SYSCALLS_MAX, "{lines} lines");
    }

    #[test]
    fn the_policy_compiles() {
        allow_list(&[]).unwrap();
        allow_list(EDGE).unwrap();
        for answered in ANSWERED {
            answering(answered.number, answered.errno).unwrap();
        }
    }

    #[test]
    fn nothing_that_makes_a_socket_or_a_process_is_listed() {
        for number in [libc::SYS_socket, libc::SYS_execve, libc::SYS_ptrace, libc::SYS_mount, libc::SYS_bpf] {
            assert!(ALLOWED.iter().chain(EDGE).all(|line| line.number != number), "{number}");
        }
    }
}
