//! A session's settings (`SET`, `SHOW`, `RESET`), with PostgreSQL's rules for transactions.
//!
//! A setting that would change what results look like (`DateStyle`, `client_encoding`) has the one value that
//! is true here, and other values are refused; one that only advises the server is kept and shown.

use std::collections::BTreeMap;

use super::answer::Refusal;
use super::known_settings::{Known, Rule, known};
use crate::limits::{CUSTOM_SETTINGS_MAX, SETTING_BYTES_MAX};

/// A change a statement asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// For how long.
    pub scope: Scope,
    /// Of what, to what.
    pub action: Action,
}

/// How long a change lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Until the session ends, if the transaction around it commits.
    Session,
    /// Until the transaction ends.
    Local,
}

/// What is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `SET name TO value`.
    Set {
        /// The setting.
        name: String,
        /// Its new value.
        value: String,
    },
    /// `SET name TO DEFAULT`, `RESET name`.
    Reset {
        /// The setting.
        name: String,
    },
    /// `RESET ALL`.
    ResetAll,
    /// A statement whose effect is what is always so (`SET TRANSACTION ISOLATION LEVEL ...`).
    Nothing,
}

impl SettingChange {
    /// The command tag of the statement that asked for it.
    pub fn tag(&self) -> &'static str {
        match self.action {
            Action::Set { .. } | Action::Nothing => "SET",
            Action::Reset { .. } | Action::ResetAll => "RESET",
        }
    }
}

/// A name and value that the client is to be told with ParameterStatus.
pub type Reported = (&'static str, String);

/// The settings of one session.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Values that start-up chose in place of the built-in defaults.
    defaults: BTreeMap<String, String>,
    /// Values that differ from the defaults, by lower-case name.
    values: BTreeMap<String, String>,
    /// What the open transaction changed: the value before it, if it was set at all.
    before: BTreeMap<String, Option<String>>,
    /// What `SET LOCAL` hides: the value a commit leaves.
    after: BTreeMap<String, Option<String>>,
}

impl Settings {
    /// The settings of a new session of that user, with what its start-up message asks for. A start-up
    /// value that is refused is an error, as in PostgreSQL.
    pub fn new<'a>(
        user: &str,
        startup: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Refusal> {
        let mut settings = Self::default();
        settings.defaults.insert("session_authorization".to_owned(), user.to_owned());
        for (name, value) in startup {
            let (name, value) = settings.check(name, value)?;
            settings.defaults.insert(name, value);
        }
        Ok(settings)
    }

    /// A setting's value; None if there is none of that name.
    pub fn value(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        let kept = self.values.get(&name).or_else(|| self.defaults.get(&name));
        kept.map(String::as_str).or_else(|| known(&name).map(|known| known.default))
    }

    /// Every setting: name, value, description. In the order of the names.
    pub fn all(&self) -> Vec<(String, String, &'static str)> {
        let mut all: BTreeMap<String, (String, &'static str)> = BTreeMap::new();
        for known in Known::ALL {
            let value = self.value(known.name).unwrap_or_default().to_owned();
            all.insert(known.name.to_owned(), (value, known.about));
        }
        for (name, value) in &self.values {
            if known(name).is_none() {
                all.insert(name.clone(), (value.clone(), ""));
            }
        }
        all.into_iter().map(|(name, (value, about))| (name, value, about)).collect()
    }

    /// Every value that a new session is told with ParameterStatus.
    pub fn reported(&self) -> Vec<Reported> {
        let reported = Known::ALL.iter().filter(|known| known.reported);
        reported.map(|known| (known.name, self.value(known.name).unwrap_or_default().to_owned())).collect()
    }

    /// Makes a change. Returns what the client must be told of it.
    pub fn apply(&mut self, change: &SettingChange, in_transaction: bool) -> Result<Vec<Reported>, Refusal> {
        if change.scope == Scope::Local && !in_transaction {
            // PostgreSQL warns and does nothing.
            return Ok(Vec::new());
        }
        match &change.action {
            Action::Nothing => Ok(Vec::new()),
            Action::Set { name, value } => {
                let (name, value) = self.check(name, value)?;
                Ok(self.replace(name, Some(value), change.scope, in_transaction).into_iter().collect())
            }
            Action::Reset { name } => {
                let name = name.to_ascii_lowercase();
                if self.value(&name).is_none() {
                    return Err(unrecognized(&name));
                }
                Ok(self.replace(name, None, change.scope, in_transaction).into_iter().collect())
            }
            Action::ResetAll => {
                let names: Vec<String> = self.values.keys().cloned().collect();
                let resets = names.into_iter();
                Ok(resets.filter_map(|name| self.replace(name, None, change.scope, in_transaction)).collect())
            }
        }
    }

    /// The transaction ended: undoes what was local to it, or all of it. Returns what the client must be told.
    pub fn transaction_ended(&mut self, committed: bool) -> Vec<Reported> {
        let before = std::mem::take(&mut self.before);
        let after = std::mem::take(&mut self.after);
        let restored = if committed { after } else { before };
        let mut told = Vec::new();
        for (name, value) in restored {
            told.extend(self.put(&name, value));
        }
        told
    }

    fn replace(
        &mut self,
        name: String,
        value: Option<String>,
        scope: Scope,
        in_transaction: bool,
    ) -> Option<Reported> {
        if in_transaction {
            let now = self.values.get(&name).cloned();
            self.before.entry(name.clone()).or_insert_with(|| now.clone());
            match scope {
                Scope::Local => {
                    self.after.entry(name.clone()).or_insert(now);
                }
                Scope::Session => {
                    self.after.remove(&name);
                }
            }
        }
        self.put(&name, value)
    }

    /// Puts a value in place; tells it if it is a reported one and differs.
    fn put(&mut self, name: &str, value: Option<String>) -> Option<Reported> {
        let old = self.value(name).map(str::to_owned);
        match value {
            Some(value) => self.values.insert(name.to_owned(), value),
            None => self.values.remove(name),
        };
        let known = known(name).filter(|known| known.reported)?;
        let new = self.value(name).map(str::to_owned);
        if new == old { None } else { Some((known.name, new.unwrap_or_default())) }
    }

    /// The canonical name and value, if the setting may have that value.
    fn check(&self, name: &str, value: &str) -> Result<(String, String), Refusal> {
        let key = name.to_ascii_lowercase();
        if value.len() > SETTING_BYTES_MAX {
            return Err(Refusal::new("22023", format!("value of parameter \"{name}\" is too long")));
        }
        if let Some(known) = known(&key) {
            return Ok((key, known.accept(value)?));
        }
        if !key.contains('.') {
            return Err(unrecognized(name));
        }
        let custom = self.values.keys().chain(self.defaults.keys()).filter(|name| name.contains('.'));
        if self.value(&key).is_none() && custom.count() >= CUSTOM_SETTINGS_MAX {
            let message = format!("a session holds at most {CUSTOM_SETTINGS_MAX} custom parameters");
            return Err(Refusal::new("54000", message));
        }
        Ok((key, value.to_owned()))
    }
}

fn unrecognized(name: &str) -> Refusal {
    Refusal::new("42704", format!("unrecognized configuration parameter \"{name}\""))
}

impl Known {
    /// The value as it will be shown, if it is one the setting can have.
    fn accept(&self, value: &str) -> Result<String, Refusal> {
        let name = self.name;
        let lower = value.trim().to_ascii_lowercase();
        let invalid = || {
            let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
            Refusal::new("22023", message)
        };
        match self.rule {
            Rule::Any => Ok(value.to_owned()),
            Rule::ReadOnly => Err(Refusal::new("55P02", format!("parameter \"{name}\" cannot be changed"))),
            Rule::Only(spellings) if spellings.contains(&lower.as_str()) => Ok(self.default.to_owned()),
            Rule::Only(_) => {
                let what = format!("parameter \"{name}\" with the value \"{value}\"");
                Err(Refusal::unsupported(what).hint(format!("It is always \"{}\" here.", self.default)))
            }
            Rule::OneOf(values) if values.contains(&lower.as_str()) => Ok(lower),
            Rule::OneOf(_) => Err(invalid()),
            Rule::Boolean => match lower.as_str() {
                "on" | "true" | "yes" | "1" | "t" | "y" => Ok("on".to_owned()),
                "off" | "false" | "no" | "0" | "f" | "n" => Ok("off".to_owned()),
                _ => Err(invalid()),
            },
            Rule::Integer(low, high) => {
                let number: i64 = lower.parse().map_err(|_| invalid())?;
                if (low..=high).contains(&number) { Ok(number.to_string()) } else { Err(invalid()) }
            }
            Rule::Milliseconds => milliseconds(&lower).ok_or_else(invalid),
        }
    }
}

/// A time in the units PostgreSQL accepts, shown in the largest unit that divides it, as PostgreSQL does.
fn milliseconds(value: &str) -> Option<String> {
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let number: u64 = value[..digits].parse().ok()?;
    let scale = match value[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let total = number.checked_mul(scale).filter(|&total| total <= i32::MAX as u64)?;
    let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
    let shown = units.into_iter().find(|(_, scale)| total != 0 && total % scale == 0);
    Some(shown.map_or("0".to_owned(), |(unit, scale)| format!("{}{unit}", total / scale)))
}

impl Settings {
    /// `statement_timeout` in milliseconds; None if there is none. The front door has to enforce it.
    pub fn statement_timeout_ms(&self) -> Option<u64> {
        let value = self.value("statement_timeout")?;
        let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        let number: u64 = value[..digits].parse().ok()?;
        let scale = match &value[digits..] {
            "s" => 1_000,
            "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => 1,
        };
        Some(number * scale).filter(|&total| total > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str, scope: Scope) -> SettingChange {
        SettingChange { scope, action: Action::Set { name: name.into(), value: value.into() } }
    }

    #[test]
    fn a_rolled_back_transaction_leaves_no_change() {
        let mut settings = Settings::new("me", [("application_name", "psql")]).expect("settings");
        let told = settings.apply(&set("Application_Name", "a", Scope::Session), true).expect("set");
        assert_eq!(told, [("application_name", "a".to_owned())]);
        settings.apply(&set("application_name", "b", Scope::Local), true).expect("set");
        let mut other = settings.clone();
        assert_eq!(settings.transaction_ended(false), [("application_name", "psql".to_owned())]);
        assert_eq!(other.transaction_ended(true), [("application_name", "a".to_owned())]);
        assert_eq!(other.value("application_name"), Some("a"));
    }

    #[test]
    fn values_that_would_be_lies_are_refused() {
        let mut settings = Settings::new("me", []).expect("settings");
        for (name, value, sqlstate) in [
            ("client_encoding", "LATIN1", "0A000"),
            ("standard_conforming_strings", "off", "0A000"),
            ("server_version", "9", "55P02"),
            ("no_such_thing", "1", "42704"),
            ("extra_float_digits", "99", "22023"),
        ] {
            let error = settings.apply(&set(name, value, Scope::Session), false).expect_err(name);
            assert_eq!(error.sqlstate, sqlstate, "{name}");
        }
        settings.apply(&set("client_encoding", "unicode", Scope::Session), false).expect("utf-8");
        assert_eq!(settings.value("CLIENT_ENCODING"), Some("UTF8"));
    }

    #[test]
    fn custom_settings_have_a_dot_and_a_limit() {
        let mut settings = Settings::new("me", []).expect("settings");
        for number in 0..CUSTOM_SETTINGS_MAX {
            let change = set(&format!("my.n{number}"), "1", Scope::Session);
            settings.apply(&change, false).expect("within the limit");
        }
        let error = settings.apply(&set("my.other", "1", Scope::Session), false).expect_err("too many");
        assert_eq!(error.sqlstate, "54000");
        let reset = SettingChange { scope: Scope::Session, action: Action::ResetAll };
        settings.apply(&reset, false).expect("reset");
        assert_eq!(settings.value("my.n1"), None);
    }

    #[test]
    fn timeouts_have_units() {
        let mut settings = Settings::new("me", []).expect("settings");
        for (given, shown, milliseconds) in [
            ("5000", "5s", Some(5000)),
            ("1500", "1500ms", Some(1500)),
            ("2min", "2min", Some(120_000)),
            ("0", "0", None),
        ] {
            settings.apply(&set("statement_timeout", given, Scope::Session), false).expect("set");
            assert_eq!(settings.value("statement_timeout"), Some(shown));
            assert_eq!(settings.statement_timeout_ms(), milliseconds);
        }
    }
}
