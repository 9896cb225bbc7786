//! A platform in a directory of its own, and guests for it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{getpid, set_child_subreaper};
use vamos_host::config::Config;
use vamos_host::directories::Directories;
use vamos_host::platform::{Platform, VmView};
use vamos_host::registry::{Registry, UidRange};
use vamos_link::{Channel, ProcessGuest};
use vamos_proto::control::VmState;
use vamos_proto::id::{VmId, VsockPort};
use vamos_sql_client::{Client, Session, Value};

/// Longest anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running platform. Its cells end with it.
pub struct Host {
    pub platform: Arc<Platform>,
    directory: tempfile::TempDir,
}

/// The binding's only database in these tests.
pub const DATABASE: &str = "catalog";

impl Host {
    /// VMs of these names, each bound to the service [`DATABASE`].
    pub async fn with_vms(names: &[&str]) -> Self {
        Self::configured(names, "").await
    }

    /// The same with more lines at the head of `vamos.toml`.
    pub async fn configured(names: &[&str], head: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        let mut text = format!("state_dir = '{root}/state'\nrun_dir = '{root}/run'\n{head}\n");
        if !head.contains("cell_binary") {
            text = format!("cell_binary = '{}'\n{text}", env!("CARGO_BIN_EXE_vamos-cell"));
        }
        text += &format!("[[service]]\nname = '{DATABASE}'\nkind = 'sql'\n");
        for name in names {
            text += &format!("[[vm]]\nname = '{name}'\n[[binding]]\nvm = '{name}'\nservice = '{DATABASE}'\n");
        }
        let file = directory.path().join("vamos.toml");
        fs::write(&file, text).unwrap();
        let platform = start(&Config::load(&file).unwrap()).await;
        Self { platform, directory }
    }

    /// Ends the platform, and starts another with what the first has left behind.
    pub async fn restart(self) -> Self {
        let Self { platform, directory } = self;
        platform.stop(Duration::ZERO).await;
        // The locks of the directories go with the last of its tasks.
        let old = Arc::downgrade(&platform);
        drop(platform);
        let end = Instant::now() + PATIENCE;
        while old.strong_count() > 0 {
            assert!(Instant::now() < end, "the platform does not end");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let platform = start(&Config::load(&directory.path().join("vamos.toml")).unwrap()).await;
        Self { platform, directory }
    }

    pub fn volume(&self, vm: &str) -> PathBuf {
        self.directory.path().join("state/volumes").join(vm)
    }

    pub fn socket(&self, vm: &str) -> PathBuf {
        self.directory.path().join("run/vms").join(vm).join("vhost.sock")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub async fn vm(&self, name: &str) -> VmView {
        self.platform.vm(vm_id(name)).await.unwrap()
    }

    /// Waits until the VM is in `state`.
    pub async fn until(&self, name: &str, state: VmState) -> VmView {
        let end = Instant::now() + PATIENCE;
        loop {
            let view = self.vm(name).await;
            if view.status.state == state {
                return view;
            }
            assert!(
                Instant::now() < end,
                "{name} is {:?}, not {state:?}: {}",
                view.status.state,
                view.status.detail
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A guest attached to the VM's device.
    pub async fn attach(&self, vm: &str) -> Guest {
        let guest = ProcessGuest::attach(&self.socket(vm)).await.unwrap();
        Guest { channel: Channel::Process(guest) }
    }

    pub async fn stop(self) {
        self.platform.stop(Duration::from_secs(2)).await;
    }
}

async fn start(config: &Config) -> Arc<Platform> {
    assert!(rustix::process::geteuid().is_root(), "cells are started by root; run these tests as root");
    // Shown with the output of a test that fails.
    let _ = tracing_subscriber::fmt().with_test_writer().with_max_level(tracing::Level::DEBUG).try_init();
    set_child_subreaper(Some(getpid())).unwrap();
    let directories = Directories::prepare(&config.state_dir, &config.run_dir).unwrap();
    let uids = UidRange { first: config.cells.uid_first, count: config.cells.uid_count };
    let mut registry = Registry::open(&directories.registry(), uids).unwrap();
    registry.reconcile(config).unwrap();
    let platform = Platform::start(config.clone(), directories, registry).await.unwrap();
    platform.settled().await;
    platform
}

/// What runs in a VM.
pub struct Guest {
    pub channel: Channel,
}

impl Guest {
    /// A session on the first binding.
    pub async fn session(&self) -> Session {
        let client = Client::connect(&self.channel, VsockPort::FIRST_BINDING).await.unwrap();
        client.open(DATABASE, "tests").await.unwrap()
    }
}

pub fn vm_id(name: &str) -> VmId {
    VmId::new(name).unwrap()
}

/// The only value of a query.
pub async fn number(session: &Session, sql: &str) -> i64 {
    match session.execute(sql, &[]).await.unwrap().rows().unwrap()[0][0] {
        Value::Integer(number) => number,
        ref other => panic!("{sql}: {other:?}"),
    }
}
