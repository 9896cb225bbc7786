//! Reading TOML tables so that every mistake is found at once: wrong types, values out of range, missing and
//! unknown fields, each with the path to it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use toml::{Table, Value};

/// Everything that is wrong with a configuration, in the order it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "  {mistake}")?;
        }
        Ok(())
    }
}

/// Where mistakes are collected.
pub(super) type Log = RefCell<Mistakes>;

/// One table being read. [`Fields::end`] reports the fields nobody asked for.
pub(super) struct Fields<'a> {
    table: &'a Table,
    path: String,
    log: &'a Log,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(table: &'a Table, path: impl Into<String>, log: &'a Log) -> Self {
        Self { table, path: path.into(), log, known: RefCell::default() }
    }

    /// Records a mistake about this table.
    pub(super) fn mistake(&self, what: impl fmt::Display) {
        let place = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        self.log.borrow_mut().0.push(format!("{place}{what}"));
    }

    fn value(&self, name: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().insert(name);
        self.table.get(name)
    }

    fn typed<T>(&self, name: &'static str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.value(name)?;
        let read = read(value);
        if read.is_none() {
            self.mistake(format_args!("{name} must be {kind}, not {}", value.type_str()));
        }
        read
    }

    /// An optional string.
    pub(super) fn text(&self, name: &'static str) -> Option<&'a str> {
        self.typed(name, "a string", Value::as_str)
    }

    /// A string that must be there.
    pub(super) fn required_text(&self, name: &'static str) -> Option<&'a str> {
        if self.table.get(name).is_none() {
            self.known.borrow_mut().insert(name);
            self.mistake(format_args!("{name} is missing"));
        }
        self.text(name)
    }

    /// An optional truth value.
    pub(super) fn truth(&self, name: &'static str) -> Option<bool> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// An optional whole number in `range`.
    pub(super) fn number(&self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.typed(name, "a whole number", Value::as_integer)?;
        match u64::try_from(number) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                self.mistake(format_args!(
                    "{name} = {number} is not from {} to {}",
                    range.start(),
                    range.end()
                ));
                None
            }
        }
    }

    /// An optional list of whole numbers in `range`.
    pub(super) fn numbers(&self, name: &'static str, range: RangeInclusive<u64>) -> Vec<u64> {
        let list = self.typed(name, "a list of whole numbers", |value| {
            value
                .as_array()?
                .iter()
                .map(|item| u64::try_from(item.as_integer()?).ok())
                .collect::<Option<Vec<_>>>()
        });
        let (good, bad): (Vec<_>, Vec<_>) =
            list.unwrap_or_default().into_iter().partition(|n| range.contains(n));
        for number in bad {
            self.mistake(format_args!("{name}: {number} is not from {} to {}", range.start(), range.end()));
        }
        good
    }

    /// An optional table.
    pub(super) fn table(&self, name: &'static str) -> Option<Fields<'a>> {
        let table = self.typed(name, "a table", Value::as_table)?;
        let path = if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Some(Self::new(table, path, self.log))
    }

    /// The tables of `[[name]]`, none if there are none.
    pub(super) fn tables(&self, name: &'static str) -> Vec<Fields<'a>> {
        let list = self.typed(name, "written as [[...]] tables", |value| {
            value.as_array()?.iter().map(Value::as_table).collect::<Option<Vec<_>>>()
        });
        let numbered = list.unwrap_or_default().into_iter().enumerate();
        numbered.map(|(at, table)| Self::new(table, format!("{name} #{}", at + 1), self.log)).collect()
    }

    /// All fields of this table as strings.
    pub(super) fn texts(self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for (name, value) in self.table {
            match value.as_str() {
                Some(text) => all.push((name.clone(), text.to_string())),
                None => self.mistake(format_args!("{name} must be a string, not {}", value.type_str())),
            }
        }
        all
    }

    /// Reports the fields that were never asked for.
    pub(super) fn end(self) {
        let known = self.known.borrow();
        for name in self.table.keys().filter(|name| !known.contains(name.as_str())) {
            let fields = known.iter().copied().collect::<Vec<_>>().join(", ");
            self.mistake(format_args!("unknown field {name:?}; known here: {fields}"));
        }
    }
}
