//! This repository keeps its rules.

use std::sync::LazyLock;

use vamos_tidy::Tree;
use vamos_tidy::exceptions::EXCEPTIONS;
use vamos_tidy::rules::RULES;

static TREE: LazyLock<Tree> = LazyLock::new(|| Tree::of_this_repository().expect("read the repository"));

/// Fails with every violation of `rule` that is not excepted, and with every exception that nothing needs.
fn holds(rule: &str) {
    let (_, check) = RULES.iter().find(|(name, _)| *name == rule).expect("a rule of that name");
    let excepted = || EXCEPTIONS.iter().filter(|exception| exception.rule == rule);
    let (allowed, found): (Vec<_>, Vec<_>) =
        check(&TREE).into_iter().partition(|found| excepted().any(|exception| exception.path == found.path));
    let idle = excepted().filter(|exception| !allowed.iter().any(|found| found.path == exception.path));
    let mut lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    lines.extend(idle.map(|idle| {
        format!("{}: is excepted from {rule} for nothing; instead: delete the exception", idle.path)
    }));
    assert!(lines.is_empty(), "{} violations of {rule}\n{}", lines.len(), lines.join("\n"));
}

/// One test a rule, so that a report names the rule.
macro_rules! rules {
    ($($test:ident: $rule:literal),* $(,)?) => {
        const TESTED: &[&str] = &[$($rule),*];
        $(#[test] fn $test() { holds($rule); })*
    };
}

rules! {
    imports_follow_the_arrows: "layers",
    libraries_stay_in_their_places: "dependencies",
    the_top_of_the_tree_is_as_drawn: "layout",
    files_are_short: "length",
    files_say_what_they_are: "docs",
    unsafe_code_is_argued_and_in_its_place: "unsafe",
    names_are_the_fields_own: "names",
    no_banned_words: "words",
    limits_are_in_one_place: "limits",
    panics_are_argued: "panics",
    every_threat_has_its_test: "threats",
    nothing_that_is_shipped_is_armed: "armed",
}

#[test]
fn every_rule_is_held() {
    let rules: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
    assert_eq!(rules, TESTED);
}

#[test]
fn the_tree_was_really_read() {
    assert!(TREE.members().len() > 10, "members: {}", TREE.members().len());
    assert!(TREE.rust().count() > 20, "Rust files: {}", TREE.rust().count());
}
