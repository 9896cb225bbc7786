//! `vamos-agent run`: the life of the agent in a guest.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use vamos_link::{Channel, ChannelAddress, Stream};
use vamos_proto::hello::{Binding, Welcome};
use vamos_proto::id::VsockPort;

use crate::databases::Databases;
use crate::hello::{Conversation, HelloError};
use crate::http::Sites;
use crate::limits::{HOST_RETRY_PAUSE, HTTP_DRAIN_MAX};
use crate::postgres::door::{Address, Doors};
use crate::shutdown;

/// How the agent runs.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// The way to the host.
    pub channel: ChannelAddress,
    /// Directory of the PostgreSQL door's Unix socket.
    pub socket_dir: PathBuf,
    /// Whether TCP doors are opened.
    pub tcp: bool,
}

/// TCP address of the PostgreSQL door of a binding that does not say.
const POSTGRES_TCP: SocketAddr =
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 5432));

/// Name of the setting that says.
const POSTGRES_DOOR: &str = "postgres";

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The channel cannot be used at all, or the first doors cannot be opened.
pub async fn run(config: RunConfig) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    let (trigger, shutdown) = shutdown::channel();
    let channel =
        config.channel.connect().await.with_context(|| format!("reach the host over {}", config.channel))?;
    let databases = Arc::new(Databases::new(channel.clone()));
    let mut doors = Doors::new(Arc::clone(&databases), shutdown);
    let mut sites = Sites::new(channel.clone());
    let outcome = tokio::select! {
        outcome = follow(channel, &config, &databases, &mut doors, &mut sites) => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    doors.close_all().await;
    drop(doors);
    // What is under way is finished, for a while.
    let _ = tokio::time::timeout(HTTP_DRAIN_MAX, sites.close()).await;
    // Connections hear of it, say farewell and end.
    trigger.begin();
    trigger.done().await;
    databases.close().await;
    outcome
}

/// Keeps the doors as the host's Welcomes say; a lost host is looked for until it is back.
async fn follow(
    mut channel: Channel,
    config: &RunConfig,
    databases: &Databases,
    doors: &mut Doors,
    sites: &mut Sites,
) -> anyhow::Result<()> {
    let mut ready = false;
    loop {
        let lost = match converse(&channel).await {
            Ok((mut conversation, mut welcome)) => loop {
                databases.update(&welcome.bindings);
                sites.update(&welcome.bindings);
                let opened = doors.update(&addresses(&welcome.bindings, config)).await;
                if !ready {
                    opened.context("open the doors")?;
                    ready = true;
                    println!("vamos-agent: ready");
                } else if let Err(error) = opened {
                    tracing::error!(error = &error as &dyn std::error::Error, "could not open a door");
                }
                tracing::info!(vm = welcome.vm, databases = ?databases.names(), "bindings");
                welcome = match conversation.welcome().await {
                    Ok(next) => next,
                    Err(error) => break error,
                };
            },
            Err(error) => error,
        };
        tracing::debug!(error = &lost as &dyn std::error::Error, "the host is not there");
        // A device without a host refuses at once or answers in its own time; the pause only keeps
        // the first case from spinning.
        tokio::time::sleep(HOST_RETRY_PAUSE).await;
        // A process guest has to attach to the device anew; for a VM's own device this is nothing.
        if let Ok(reached) = config.channel.connect().await {
            channel = reached;
            sites.reach(channel.clone());
            databases.reach(channel.clone());
        }
    }
}

async fn converse(channel: &Channel) -> Result<(Conversation<Stream>, Welcome), HelloError> {
    Conversation::begin(channel.open(VsockPort::HELLO).await?).await
}

/// The bindings of this VM, asked once.
///
/// # Errors
/// The host cannot be reached or understood.
pub async fn bindings(channel: &Channel) -> anyhow::Result<Welcome> {
    let (_, welcome) = converse(channel).await.context("say hello to the host")?;
    Ok(welcome)
}

/// Where PostgreSQL doors are wanted: one Unix socket for all databases, and the TCP addresses the operator
/// gave, or the usual one. "off" is no address.
fn addresses(bindings: &[Binding], config: &RunConfig) -> Vec<Address> {
    let sql: Vec<&Binding> = bindings.iter().filter(|binding| binding.kind == "sql").collect();
    if sql.is_empty() {
        return Vec::new();
    }
    let mut addresses = vec![Address::Unix(config.socket_dir.join(".s.PGSQL.5432"))];
    for binding in sql.iter().filter(|_| config.tcp) {
        let address = match binding.door.get(POSTGRES_DOOR).map(String::as_str) {
            Some("off") => continue,
            None | Some("") => POSTGRES_TCP,
            Some(given) => match given.parse() {
                Ok(address) => address,
                Err(_) => {
                    tracing::error!(binding = binding.name, given, "the door's address is not an address");
                    continue;
                }
            },
        };
        if !addresses.contains(&Address::Tcp(address)) {
            addresses.push(Address::Tcp(address));
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(name: &str, door: Option<&str>) -> Binding {
        let door = door.map(|address| (POSTGRES_DOOR.to_owned(), address.to_owned())).into_iter().collect();
        Binding { name: name.to_owned(), kind: "sql".to_owned(), port: 1024, door, epoch: 0 }
    }

    fn config(tcp: bool) -> RunConfig {
        RunConfig { channel: "vsock".parse().unwrap(), socket_dir: "/run/postgresql".into(), tcp }
    }

    #[test]
    fn doors_are_where_bindings_say() {
        let unix = Address::Unix("/run/postgresql/.s.PGSQL.5432".into());
        let other = Address::Tcp("127.0.0.1:6000".parse().unwrap());
        let bindings = [sql("a", None), sql("b", Some("127.0.0.1:6000")), sql("c", Some("off"))];
        let expected = [unix.clone(), Address::Tcp(POSTGRES_TCP), other];
        assert_eq!(addresses(&bindings, &config(true)), expected);
        assert_eq!(addresses(&bindings, &config(false)), [unix]);
        assert!(addresses(&[], &config(true)).is_empty());
    }
}
