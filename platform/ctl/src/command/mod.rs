//! The subcommands: one file per noun, each verb asks vamosd and prints.

mod binding;
mod edge;
mod host;
mod migrate;
mod service;
mod snapshot;
mod vm;

use crate::cli::{Cli, Command};
use crate::connect::connect;
use crate::failure::Failure;

/// Runs the command that was typed.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let channel = connect(&cli.endpoint).await?;
    match cli.command {
        Command::Vm(verb) => vm::run(channel, verb, cli.json).await,
        Command::Service(verb) => service::run(channel, verb, cli.json).await,
        Command::Binding(verb) => binding::run(channel, verb, cli.json).await,
        Command::Route(verb) => edge::route(channel, verb, cli.json).await,
        Command::Certificate(verb) => edge::certificate(channel, verb, cli.json).await,
        Command::Purge { vm, service, url, tag, .. } => {
            edge::purge(channel, (vm, service.unwrap_or_default()), (url, tag), cli.json).await
        }
        Command::Edge => edge::stats(channel, cli.json).await,
        Command::Drain { vm, deadline } => host::drain(channel, vm, deadline, cli.json).await,
        Command::Discard { vm } => host::discard(channel, vm, cli.json).await,
        Command::Migrate(options) => {
            let target = connect(&cli.endpoint.to(&options.to)).await?;
            migrate::run(channel, target, *options, cli.json).await
        }
        Command::Upgrade => host::upgrade(channel, cli.json).await,
        Command::Shutdown => host::shutdown(channel, cli.json).await,
        Command::Doctor => host::doctor(channel, cli.json).await,
        // Needs no vamosd; main has answered it already.
        Command::Completion { .. } => Ok(()),
    }
}
