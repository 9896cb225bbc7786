//! `vamos-agent sql` and `vamos-agent shell`: statements straight to the host, without a front door.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use rustyline::error::ReadlineError;
use vamos_link::Channel;
use vamos_proto::id::VsockPort;
use vamos_sql_client::{Client, ClientError, Session};
use vamos_sql_dialect::postgres::split;

use crate::run;
use crate::table;

/// A session on one of the VM's databases.
///
/// # Errors
/// The host cannot be reached, or the VM has no such database.
pub async fn open(channel: &Channel, database: &str) -> anyhow::Result<Session> {
    let welcome = run::bindings(channel).await?;
    let sql: Vec<_> = welcome.bindings.iter().filter(|binding| binding.kind == "sql").collect();
    let Some(binding) = sql.iter().find(|binding| binding.name == database) else {
        let names: Vec<&str> = sql.iter().map(|binding| binding.name.as_str()).collect();
        anyhow::bail!(
            "database {database:?} does not exist; the databases of this machine: {}",
            names.join(", ")
        );
    };
    let client = Client::connect(channel, VsockPort(binding.port)).await.context("open a link")?;
    client.open(database, "vamos-agent").await.context("open a session")
}

/// Runs the statements of `text` one after the other and prints what they return.
///
/// # Errors
/// The first failure.
pub async fn run_text(session: &Session, text: &str) -> anyhow::Result<()> {
    for span in split(text)? {
        print!("{}", table::render(&session.execute(span.of(text), &[]).await?)?);
    }
    Ok(())
}

/// Reads statements, each ended by a semicolon, until the input ends; an error ends a script, not a
/// conversation.
///
/// # Errors
/// The terminal failed, the link was lost, or a script's statement failed.
pub async fn converse(session: &Session, database: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        let text = std::io::read_to_string(std::io::stdin()).context("read the statements")?;
        return run_text(session, &text).await;
    }
    println!("{}: statements end with ';', \\q leaves", session.engine());
    let mut editor = rustyline::DefaultEditor::new().context("open the terminal")?;
    let mut text = String::new();
    loop {
        let prompt = format!("{database}{} ", if text.is_empty() { "=>" } else { "->" });
        // Reading the terminal blocks; nothing else runs in this process.
        match editor.readline(&prompt) {
            Ok(line) if text.is_empty() && matches!(line.trim(), "\\q" | "exit" | "quit") => return Ok(()),
            Ok(line) => {
                text.push_str(&line);
                text.push('\n');
            }
            Err(ReadlineError::Interrupted) => text.clear(),
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("read the terminal"),
        }
        if !is_whole(&text) {
            continue;
        }
        // A history that cannot be kept is no reason to stop.
        let _ = editor.add_history_entry(text.trim());
        if let Err(error) = run_text(session, &text).await {
            if error.downcast_ref::<ClientError>().is_some_and(ClientError::is_link_lost) {
                return Err(error);
            }
            eprintln!("error: {error:#}");
        }
        std::io::stdout().flush()?;
        text.clear();
    }
}

/// Whether the text ends with a semicolon that ends a statement, rather than one in quotes, in a comment or
/// in the body of a trigger.
fn is_whole(text: &str) -> bool {
    let text = text.trim_end();
    let Some(statements) = text.strip_suffix(';') else { return text.is_empty() };
    // Within a statement, the semicolon would be part of it: it would not end before it.
    split(text).is_ok_and(|spans| spans.last().is_none_or(|last| last.end <= statements.len()))
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn a_statement_ends_with_its_semicolon() {
        for whole in ["SELECT 1;", "SELECT ';' ; ", "", ";"] {
            assert!(is_whole(whole), "{whole}");
        }
        for part in
            ["SELECT 1", "SELECT ';", "SELECT ';'", "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1;"]
        {
            assert!(!is_whole(part), "{part}");
        }
    }
}
