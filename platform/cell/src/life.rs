//! The life of the process, from inherited descriptors to its exit.

use anyhow::{Context, bail};
use vamos_sandbox::{inherited, memory};

use crate::confine::{Confinement, announce, confine, receive_start, refuse};
use crate::{Control, serve};

/// Takes the control channel from standard input, builds the walls, and serves until there is nobody to serve.
///
/// # Errors
/// What ends the cell early; the process should exit.
pub fn live() -> anyhow::Result<()> {
    inherited::close_others().context("close inherited descriptors")?;
    memory::prefer_small();
    tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(std::io::stderr).init();
    let socket = inherited::control_socket().context("take the control channel from standard input")?;
    let (start, given) =
        receive_start(&socket).context("receive the start message (vamos-cell is started by vamosd)")?;
    // One thread so far; the walls bind it and all that it starts.
    let report = match confine(&start) {
        Ok(Confinement::Confined(report)) => report,
        Ok(Confinement::Parent(parent)) => {
            return announce(&socket, parent).context("announce the cell");
        }
        Err(error) => {
            let _ = refuse(&socket, &error.to_string());
            bail!(error);
        }
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let control = Control::new(socket).context("watch the control channel")?;
        serve(control, start, given, report).await.context("serve the VM")
    })
}
