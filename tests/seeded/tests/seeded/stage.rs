//! A platform in a directory of its own, with one VM whose cell obeys orders.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};
use tokio::time::sleep;
use vamos_host::config::Config;
use vamos_host::directories::Directories;
use vamos_host::platform::Platform;
use vamos_host::registry::{Registry, UidRange};
use vamos_link::{Channel, ProcessGuest};
use vamos_proto::id::VmId;
use vamos_seam::{Bug, Point, plant};

/// Longest that anything may take which does not hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binding's database.
pub const DATABASE: &str = "bank";

const VM: &str = "a";

pub struct Stage {
    platform: Arc<Platform>,
    config: Config,
    directory: tempfile::TempDir,
}

impl Stage {
    /// With a bug in the cell and in the clients, wherever it belongs; or with none.
    pub async fn with(bug: Option<Bug>) -> Self {
        assert!(rustix::process::geteuid().is_root(), "cells are started by root; run these tests as root");
        // Shown with the output of a test that fails.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        set_child_subreaper(Some(getpid())).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (root, cell) = (directory.path().display(), env!("CARGO_BIN_EXE_armed-cell"));
        let text = format!(
            "state_dir = '{root}/state'\nrun_dir = '{root}/run'\ncell_binary = '{cell}'\n\
             [[service]]\nname = '{DATABASE}'\nkind = 'sql'\n[[vm]]\nname = '{VM}'\n\
             [[binding]]\nvm = '{VM}'\nservice = '{DATABASE}'\n"
        );
        let file = directory.path().join("vamos.toml");
        fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap();
        let stage = Self { platform: start(&config).await, config, directory };
        plant(bug);
        stage.order(&bug.map_or(String::new(), |bug| format!("bug {}\n", bug.name())));
        stage
    }

    fn volume(&self) -> PathBuf {
        self.directory.path().join("state/volumes").join(VM)
    }

    fn seam(&self) -> PathBuf {
        self.volume().join("seam")
    }

    /// Gives the cell these orders, and no others.
    pub fn order(&self, orders: &str) {
        // Complete before the cell can see it, and the cell's to strike out.
        let draft = self.volume().join("seam.new");
        fs::write(&draft, orders).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o666)).unwrap();
        fs::rename(&draft, self.seam()).unwrap();
    }

    /// Adds an order about a point.
    pub fn order_at(&self, what: &str, point: Point, nth: u64) {
        let orders = self.orders();
        self.order(&format!("{orders}{what} {} {nth}\n", point.name()));
    }

    /// Orders that have not been carried out.
    pub fn orders(&self) -> String {
        fs::read_to_string(self.seam()).unwrap_or_default()
    }

    /// The VM's cell, if there is one at the moment.
    pub async fn cell(&self) -> Option<Pid> {
        let view = self.platform.vm(VmId::new(VM).unwrap()).await.unwrap();
        Pid::from_raw(view.status.cell_pid as i32)
    }

    /// How many cells there have been.
    pub async fn cells(&self) -> u64 {
        self.platform.vm(VmId::new(VM).unwrap()).await.unwrap().status.cell_starts
    }

    /// Kills the cell; false if there is none.
    pub async fn kill(&self) -> bool {
        self.cell().await.is_some_and(|cell| kill_process(cell, Signal::KILL).is_ok())
    }

    /// A guest attached to the VM's device.
    pub async fn attach(&self) -> Channel {
        let socket = self.directory.path().join("run/vms").join(VM).join("vhost.sock");
        Channel::Process(ProcessGuest::attach(&socket).await.unwrap())
    }

    /// Another vamosd, with the VM in another generation.
    pub async fn restore(self) -> Self {
        let Self { platform, config, directory } = self;
        platform.stop(Duration::from_secs(2)).await;
        // The locks of the directories go with the last of its tasks.
        let old = Arc::downgrade(&platform);
        drop(platform);
        let end = Instant::now() + PATIENCE;
        while old.strong_count() > 0 {
            assert!(Instant::now() < end, "the platform does not end");
            sleep(Duration::from_millis(1)).await;
        }
        // Not kept: what it locks is the next one's.
        let registry = Directories::prepare(&config.state_dir, &config.run_dir).unwrap().registry();
        let db = rusqlite::Connection::open(registry).unwrap();
        assert_eq!(db.execute("UPDATE identity SET generation = generation + 1", []).unwrap(), 1);
        drop(db);
        Self { platform: start(&config).await, config, directory }
    }

    pub async fn end(self) {
        plant(None);
        self.platform.stop(Duration::ZERO).await;
    }
}

async fn start(config: &Config) -> Arc<Platform> {
    let directories = Directories::prepare(&config.state_dir, &config.run_dir).unwrap();
    let uids = UidRange { first: config.cells.uid_first, count: config.cells.uid_count };
    let mut registry = Registry::open(&directories.registry(), uids).unwrap();
    registry.reconcile(config).unwrap();
    let platform = Platform::start(config.clone(), directories, registry).await.unwrap();
    platform.settled().await;
    platform
}
