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
    match command {
        "ALTER" if mentions() => Some(format!("names that begin with {PLATFORM_PREFIX}")),
        // A bare one does not come here.
        "VACUUM" => Some("VACUUM into a file".to_owned()),
        _ => None,
    }
}

/// Answers SQLite's question, and notes for the guard what it saw.
pub(crate) fn authorize(guard: &Guard, context: AuthContext<'_>) -> Authorization {
    let mode = guard.mode();
    if mode != Mode::Engine
        && let AuthAction::Analyze { table_name } = context.action
        && names([table_name]).is_err()
    {
        // ANALYZE of everything passes over what is the platform's.
        return Authorization::Ignore;
    }
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

#[cfg(test)]
mod tests {
    use rusqlite::hooks::TransactionOperation;

    use super::*;

    fn ask(mode: Mode, action: AuthAction<'_>) -> Authorization {
        let guard = Guard::new();
        guard.enter(mode);
        authorize(&guard, AuthContext { action, database_name: Some("main"), accessor: None })
    }

    /// Each action SQLite knows, with harmless arguments, and whether a guest may: alone, and seated.
    #[test]
    fn t07_every_action_code_has_been_judged() {
        use AuthAction::*;
        let (table_name, index_name, trigger_name, view_name) = ("t", "i", "r", "v");
        let begin = TransactionOperation::Begin;
        for (action, alone, seated) in [
            (CreateIndex { index_name, table_name }, true, true),
            (CreateTable { table_name }, true, true),
            (CreateTempIndex { index_name, table_name }, true, true),
            (CreateTempTable { table_name }, true, true),
            (CreateTempTrigger { trigger_name, table_name }, true, true),
            (CreateTempView { view_name }, true, true),
            (CreateTrigger { trigger_name, table_name }, true, true),
            (CreateView { view_name }, true, true),
            (Delete { table_name }, true, true),
            (DropIndex { index_name, table_name }, true, true),
            (DropTable { table_name }, true, true),
            (DropTempIndex { index_name, table_name }, true, true),
            (DropTempTable { table_name }, true, true),
            (DropTempTrigger { trigger_name, table_name }, true, true),
            (DropTempView { view_name }, true, true),
            (DropTrigger { trigger_name, table_name }, true, true),
            (DropView { view_name }, true, true),
            (Insert { table_name }, true, true),
            (Pragma { pragma_name: "table_info", pragma_value: Some("t") }, true, true),
            (Pragma { pragma_name: "synchronous", pragma_value: Some("0") }, false, false),
            (Read { table_name, column_name: "c" }, true, true),
            (Read { table_name: "dbstat", column_name: "c" }, false, false),
            (Select, true, true),
            (Transaction { operation: begin }, false, true),
            (Update { table_name, column_name: "c" }, true, true),
            (Attach { filename: "" }, false, false),
            (Attach { filename: "x.db" }, false, false),
            (Detach { database_name: "main" }, false, false),
            (AlterTable { database_name: "main", table_name }, true, true),
            (Reindex { index_name }, true, true),
            (Analyze { table_name }, true, true),
            (CreateVtable { table_name, module_name: "fts5" }, true, true),
            (CreateVtable { table_name, module_name: "fts3" }, false, false),
            (DropVtable { table_name, module_name: "rtree" }, true, true),
            (Function { function_name: "upper" }, true, true),
            (Function { function_name: "load_extension" }, false, false),
            (Savepoint { operation: begin, savepoint_name: "s" }, false, true),
            (Savepoint { operation: begin, savepoint_name: "_vamos_statement" }, false, false),
            (Recursive, true, true),
        ] {
            assert_eq!(ask(Mode::Guest, action) == Authorization::Allow, alone, "{action:?}");
            assert_eq!(ask(Mode::Seated, action) == Authorization::Allow, seated, "{action:?}");
        }
        for code in -1..100 {
            for arg1 in [None, Some("x")] {
                let unknown = Unknown { code, arg1, arg2: None };
                assert_eq!(ask(Mode::Guest, unknown), Authorization::Deny);
                assert_eq!(ask(Mode::Seated, unknown), Authorization::Deny);
                assert_eq!(ask(Mode::Vacuum, unknown), Authorization::Deny);
            }
        }
        assert_eq!(ask(Mode::Vacuum, Attach { filename: "" }), Authorization::Allow);
        assert_eq!(ask(Mode::Vacuum, Attach { filename: "x.db" }), Authorization::Deny);
    }

    #[test]
    fn the_platforms_names_are_its_own() {
        for name in ["_vamos_x", "_VAMOS_", "_Vamos_record"] {
            assert_eq!(ask(Mode::Guest, AuthAction::Analyze { table_name: name }), Authorization::Ignore);
            assert_eq!(ask(Mode::Guest, AuthAction::Insert { table_name: name }), Authorization::Deny);
            assert_eq!(
                ask(Mode::Guest, AuthAction::Read { table_name: name, column_name: "" }),
                Authorization::Deny
            );
        }
        assert!(refuses_text("ALTER", "alter table a rename to [_VAMOS_b]").is_some());
    }
}
