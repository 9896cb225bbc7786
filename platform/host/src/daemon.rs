//! The life of vamosd: check the host, lock the directories, open the registry, collect or start the cells, serve
//! the control plane, then drain and end, or be followed by another program in the same process.

use std::convert::Infallible;
use std::env;
use std::io::{Write, stdout};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vamos_sandbox::Enforcement;
use vamos_sandbox::inherited::{self, Inherited};

use crate::config::Config;
use crate::control::ControlPlane;
use crate::directories::Directories;
use crate::doctor;
use crate::limits::DRAIN_DEFAULT;
use crate::platform::Platform;
use crate::registry::{Custody, Registry, UidRange};
use crate::systemd;

/// In the environment of a vamosd that is only to say whether it can use its configuration.
pub const CHECK: &str = "VAMOSD_CHECK";

/// Runs vamosd until it is to end.
///
/// # Errors
/// It cannot serve.
pub fn run(config: Config) -> anyhow::Result<()> {
    // Before anything is opened: a number that is not inherited must not be taken for one that is.
    let inherited = inherited::take().context("take over what the last vamosd left open")?;
    // Known now: the file may have another name when it is needed.
    let program = env::current_exe().context("find this program")?;
    check_host(&config)?;
    let directories = Directories::prepare(&config.state_dir, &config.run_dir)?;
    let uids = UidRange { first: config.cells.uid_first, count: config.cells.uid_count };
    let mut registry = Registry::open(&directories.registry(), uids).context("open the registry")?;
    registry.reconcile(&config).context("bring the registry in line with the configuration")?;
    // Cells outlive the process that forked them and are reaped here.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("become the cells' reaper")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(config, directories, registry, inherited, program))
}

async fn serve(
    config: Config,
    directories: Directories,
    registry: Registry,
    inherited: Inherited,
    program: PathBuf,
) -> anyhow::Result<()> {
    let (control, socket) = (config.control.clone(), directories.control_socket());
    let follows = inherited.follows();
    let platform = Platform::start(config, directories, registry).await?;
    let plane = ControlPlane::bind(&control, &socket, platform.clone(), inherited).await?;
    let listeners = plane.listeners().context("keep the control plane's sockets")?;
    end_on_signal(platform.clone())?;
    let serving = tokio::spawn(plane.serve(platform.ending()));
    platform.settled().await;
    info!(socket = %socket.display(), "serving");
    // A reader that has gone away is no reason not to serve.
    let _ = writeln!(stdout(), "vamosd: ready");
    systemd::ready(&listeners);
    if follows {
        tokio::spawn(renew(platform.clone()));
    }
    loop {
        tokio::select! {
            () = platform.upgrade_wanted() => {
                let error = match platform.is_steady().await {
                    true => follow(&program, &listeners).err(),
                    false => Some(anyhow!("a VM has no cell, and its front-end would be lost; mend it first")),
                };
                error!(error = ?error, "the upgrade failed, this vamosd goes on");
            }
            () = async { platform.ending().cancelled().await } => break,
        }
    }
    info!("draining");
    systemd::stopping();
    platform.stop(DRAIN_DEFAULT).await;
    // Clients that keep their streams open do not keep vamosd.
    let _ = tokio::time::timeout(DRAIN_DEFAULT, serving).await;
    let _ = std::fs::remove_file(&socket);
    info!("ended");
    Ok(())
}

/// Becomes the program that is now where this one was. The control plane's sockets stay open; for the cells it
/// is as if vamosd had been killed, which they outlive.
fn follow(program: &PathBuf, listeners: &Inherited) -> anyhow::Result<Infallible> {
    // Whether it runs at all on this host, and what it thinks of the configuration: there is no way back from the
    // other side.
    let check = Command::new(program).args(env::args_os().skip(1)).env(CHECK, "true").output();
    let check = check.context("run the new vamosd")?;
    if !check.status.success() {
        let said = String::from_utf8_lossy(&check.stderr);
        bail!(
            "{} that checks its configuration ends with {}: {}",
            program.display(),
            check.status,
            said.trim()
        );
    }
    info!(program = %program.display(), "vamosd is followed by the program that is now in its place");
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1));
    listeners.pass_on(&mut command).context("keep the control plane's sockets open")?;
    systemd::reloading();
    let error = command.exec();
    systemd::ready(&Inherited::default());
    listeners.keep_back().context("close the control plane's sockets on exec again")?;
    Err(error).with_context(|| format!("run {}", program.display()))
}

/// Replaces the cells of the last vamosd's program, one VM at a time, each when the one before it serves.
async fn renew(platform: Arc<Platform>) {
    let vms = match platform.vms().await {
        Ok(vms) => vms,
        Err(error) => return error!(%error, "the cells are not replaced"),
    };
    for vm in vms {
        let name = vm.row.name;
        if !matches!(vm.row.custody, Custody::Here(_)) {
            continue;
        }
        match platform.renew_cell(&name).await {
            Ok(()) => info!(vm = %name, "the cell is of the new program"),
            Err(error) => warn!(vm = %name, %error, "the cell is not replaced"),
        }
    }
}

fn check_host(config: &Config) -> anyhow::Result<()> {
    let missing = doctor::missing_layers();
    if missing.is_empty() {
        return Ok(());
    }
    if config.enforcement == Enforcement::Strict {
        bail!(
            "this host cannot confine a cell fully:\n  {}\nmend that, or accept it with --sandbox=best-effort",
            missing.join("\n  ")
        );
    }
    for layer in missing {
        warn!(layer, "cells run without a layer of their sandbox");
    }
    Ok(())
}

fn end_on_signal(platform: Arc<Platform>) -> anyhow::Result<()> {
    let ending: CancellationToken = platform.ending();
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => platform.upgrade(),
            }
        }
        ending.cancel();
    });
    Ok(())
}
