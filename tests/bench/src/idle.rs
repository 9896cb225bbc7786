//! What a cell costs when nothing happens, and how soon it answers a guest that comes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use vamos_sql_client::Value;

use crate::guest::Guest;
use vamos_bench::limits::REQUEST_MAX;
use vamos_bench::platform::Platform;

/// What was found.
pub struct Idle {
    /// Proportional memory of the idle cell, MiB.
    pub pss_mib: Vec<f64>,
    /// Socket connected to first answered statement, ms.
    pub attach_ms: Vec<f64>,
}

/// Attaches `attachments` times, one guest after the other, then lets the last one rest.
///
/// # Errors
/// If the platform does not start, or a guest is not answered.
pub async fn measure(vamosd: &Path, directory: &Path, attachments: usize) -> anyhow::Result<Idle> {
    let platform = Platform::start(vamosd, directory, 0)?;
    let mut attach_ms = Vec::with_capacity(attachments);
    for number in 0..attachments {
        wait_for_socket(&platform.socket()).await?;
        let start = Instant::now();
        let guest = Guest::attach(&platform.socket()).await.with_context(|| platform.log())?;
        let session = guest.session().await?;
        session.execute("SELECT 1", &[]).await?;
        attach_ms.push(start.elapsed().as_secs_f64() * 1e3);
        if number + 1 < attachments {
            drop((session, guest));
            // The cell notices that its guest left; the next one is a new arrival.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        session.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)", &[]).await?;
        for note in 0..100 {
            session
                .execute("INSERT INTO note (body) VALUES (?1)", &[Value::from(format!("note {note}"))])
                .await?;
        }
        session.execute("SELECT count(*), max(body) FROM note", &[]).await?;
        let mut pss_mib = Vec::new();
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            pss_mib.push(platform.cell_pss()? as f64 / f64::from(1 << 20));
        }
        drop((session, guest));
        platform.stop().await;
        return Ok(Idle { pss_mib, attach_ms });
    }
    Ok(Idle { pss_mib: Vec::new(), attach_ms })
}

async fn wait_for_socket(socket: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + REQUEST_MAX;
    while !socket.exists() {
        if Instant::now() > deadline {
            anyhow::bail!("{} did not appear", socket.display());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
