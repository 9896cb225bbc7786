//! What a guest's statement may do: SQLite's authorizer, default deny.
//!
//! SQLite asks once for each thing a statement does while it prepares it, and again for what the
//! statement prepares in turn (VACUUM, virtual tables, ALTER). Traps, each with a test:
//! - `ATTACH ?` and `ATTACH 'a' || 'b'` arrive without a file name; VACUUM INTO arrives as ATTACH with
//!   its file; a plain VACUUM as ATTACH of the empty name.
//! - The new name of ALTER TABLE ... RENAME does not arrive at all: [`refuses_text`] looks for it.

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::allow;
use crate::guard::{Guard, Mode, seen};
use crate::pragma;

/// Names that begin so belong to the platform.
const PLATFORM_PREFIX: &str = "_vamos_";

/// Whether a text must be refused before SQLite sees it, and why.
pub(crate) fn refuses_text(command: &str, text: &str) -> Option<String> {
    let mentions = || text.to_ascii_lowercase().contains(PLATFORM_PREFIX);
    (command == "ALTER" && mentions()).then(|| format!("names that begin with {PLATFORM_PREFIX}"))
}

/// Answers SQLite's question, and notes for the guard what it saw.
pub(crate) fn authorize(guard: &Guard, context: AuthContext<'_>) -> Authorization {
    let mode = guard.mode();
    let refusal = match mode {
        Mode::Engine => None,
        Mode::Vacuum => match context.action {
            AuthAction::Attach { filename: "" } => None,
            AuthAction::Attach { .. } | AuthAction::Unknown { .. } => Some("ATTACH".to_owned()),
            _ => None,
        },
        Mode::Guest | Mode::Seated => {
            guard.see(seen::PREPARED);
            match guest(context, mode == Mode::Seated) {
                Ok(bits) => {
                    guard.see(bits);
                    None
                }
                Err(what) => Some(what),
            }
        }
    };
    match refusal {
        None => Authorization::Allow,
        Some(what) => {
            guard.refuse(what);
            Authorization::Deny
        }
    }
}

/// What to note about an allowed action, or what to call a refused one.
fn guest(context: AuthContext<'_>, seated: bool) -> Result<u32, String> {
    let temp = context.database_name.is_some_and(|name| name.eq_ignore_ascii_case("temp"));
    let (writes, changes_schema) =
        if temp { (0, seen::TEMP) } else { (seen::WRITES, seen::SCHEMA | seen::WRITES) };
    match context.action {
        AuthAction::Select | AuthAction::Recursive => Ok(0),
        AuthAction::Read { table_name, .. } => readable(table_name).map(|()| 0),
        AuthAction::Insert { table_name } => names([table_name]).map(|()| writes | seen::INSERTS),
        AuthAction::Update { table_name, .. } | AuthAction::Delete { table_name } => {
            names([table_name]).map(|()| writes)
        }
        AuthAction::CreateTable { table_name: name }
        | AuthAction::DropTable { table_name: name }
        | AuthAction::CreateView { view_name: name }
        | AuthAction::DropView { view_name: name } => names([name]).map(|()| changes_schema),
        AuthAction::CreateIndex { index_name: name, table_name }
        | AuthAction::DropIndex { index_name: name, table_name }
        | AuthAction::CreateTrigger { trigger_name: name, table_name }
        | AuthAction::DropTrigger { trigger_name: name, table_name } => {
            names([name, table_name]).map(|()| changes_schema)
        }
        AuthAction::CreateTempTable { table_name: name }
        | AuthAction::DropTempTable { table_name: name }
        | AuthAction::CreateTempView { view_name: name }
        | AuthAction::DropTempView { view_name: name } => names([name]).map(|()| seen::TEMP),
        AuthAction::CreateTempIndex { index_name: name, table_name }
        | AuthAction::DropTempIndex { index_name: name, table_name }
        | AuthAction::CreateTempTrigger { trigger_name: name, table_name }
        | AuthAction::DropTempTrigger { trigger_name: name, table_name } => {
            names([name, table_name]).map(|()| seen::TEMP)
        }
        AuthAction::AlterTable { database_name, table_name } => {
            let temp = database_name.eq_ignore_ascii_case("temp");
            names([table_name]).map(|()| if temp { seen::TEMP } else { seen::SCHEMA | seen::WRITES })
        }
        AuthAction::CreateVtable { table_name, module_name }
        | AuthAction::DropVtable { table_name, module_name } => {
            names([table_name])?;
            allow::module(module_name)
                .then_some(changes_schema)
                .ok_or_else(|| format!("module {module_name}"))
        }
        AuthAction::Analyze { table_name: name } | AuthAction::Reindex { index_name: name } => {
            names([name]).map(|()| writes)
        }
        AuthAction::Function { function_name } => function(function_name),
        AuthAction::Pragma { pragma_name, pragma_value } => {
            let allowed = pragma::passes(pragma_name, pragma_value.is_some());
            allowed.then_some(0).ok_or_else(|| format!("PRAGMA {pragma_name}"))
        }
        AuthAction::Transaction { .. } if seated => Ok(0),
        AuthAction::Savepoint { savepoint_name, .. } if seated => names([savepoint_name]).map(|()| 0),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            Err("a transaction within a statement".to_owned())
        }
        AuthAction::Attach { .. } => Err("ATTACH".to_owned()),
        AuthAction::Detach { .. } => Err("DETACH".to_owned()),
        other => Err(format!("{other:?}")),
    }
}

fn function(name: &str) -> Result<u32, String> {
    let lower = name.to_ascii_lowercase();
    if !allow::function(&lower) {
        return Err(format!("function {name}"));
    }
    let history = matches!(&*lower, "changes" | "total_changes" | "last_insert_rowid");
    Ok(if history { seen::HISTORY } else { 0 })
}

fn readable(table: &str) -> Result<(), String> {
    names([table])?;
    if allow::is_hidden_table(&table.to_ascii_lowercase()) { Err(format!("table {table}")) } else { Ok(()) }
}

/// None of these names may be the platform's own.
fn names<const N: usize>(names: [&str; N]) -> Result<(), String> {
    let is_platform = |name: &&str| {
        name.get(..PLATFORM_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PLATFORM_PREFIX))
    };
    match names.iter().find(|name| is_platform(name)) {
        Some(name) => Err(format!("{name}, a name of the platform's own")),
        None => Ok(()),
    }
}
