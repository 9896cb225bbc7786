//! An outcome as a table for a terminal.

use std::fmt::Write;

use vamos_sql_client::{BlockError, Outcome, Value};

/// Lines of a table with its columns' names, or what a statement without rows did.
///
/// # Errors
/// A row block is damaged.
pub fn render(outcome: &Outcome) -> Result<String, BlockError> {
    if outcome.columns.is_empty() {
        return Ok(match outcome.command.as_str() {
            "INSERT" | "UPDATE" | "DELETE" | "REPLACE" => {
                format!("{}: {} rows\n", outcome.command, outcome.changes)
            }
            command => format!("{command}\n"),
        });
    }
    let names = outcome.columns.iter().map(|column| column.name.clone()).collect();
    let rows = outcome.rows()?;
    let mut lines: Vec<Vec<String>> = vec![names];
    lines.extend(rows.iter().map(|row| row.iter().map(shown).collect()));
    let columns = outcome.columns.len();
    let width =
        |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    let mut table = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
            let number =
                number > 0 && matches!(rows[number - 1].get(at), Some(Value::Integer(_) | Value::Real(_)));
            if number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let cells: Vec<String> = cells.collect();
        // Writing to a String cannot fail.
        let _ = writeln!(table, " {}", cells.join(" | ").trim_end());
        if number == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            let _ = writeln!(table, "{}", rule.join("+"));
        }
    }
    let plural = if rows.len() == 1 { "" } else { "s" };
    let _ = writeln!(table, "({} row{plural})", rows.len());
    Ok(table)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(i) => i.to_string(),
        Value::Real(r) => r.to_string(),
        Value::Text(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        Value::Blob(bytes) => {
            bytes.iter().fold("x'".to_owned(), |text, byte| format!("{text}{byte:02x}")) + "'"
        }
    }
}
