//! `vamosctl migrate`: moves a VM from one host to another, by asking both vamosds and, if it is told where they are,
//! the two QEMUs.
//!
//! The volume is copied while the guest runs. Then the guest's device is unplugged and two things happen side by side:
//! what is left of the volume is copied and its cell ended for good, and QEMU moves the guest's memory. When both are
//! done the target serves the VM, and the device is plugged in there. Until then everything can be taken back; from
//! then on nothing is: an interrupted command is run again, and goes on.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use serde_json::json;
use tonic::Code;
use tonic::transport::Channel;
use vamos_proto::control::migrations_client::MigrationsClient;
use vamos_proto::control::vms_client::VmsClient;
use vamos_proto::control::{Chunk, Departure, GetVmRequest, ImportRequest, LeaveRequest, MigrationRequest};

use crate::attach_args::{CHARDEV, DEVICE};
use crate::cli::Migrate;
use crate::failure::Failure;
use crate::output::print;
use crate::qmp::Qmp;

/// Pieces on their way to the target at once.
const PIECES: usize = 4;

/// Largest message: a piece and what goes with it, bytes.
const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// What QEMU calls a VM that it has moved away.
const MOVED: &str = "postmigrate";

/// Times a copy is begun again because the cell was replaced under it.
const ATTEMPTS: usize = 5;

type Side = MigrationsClient<Channel>;

/// The two ends of a migration.
struct Ends {
    source: Side,
    target: Side,
    source_vms: VmsClient<Channel>,
    target_vms: VmsClient<Channel>,
    /// Both QEMUs, and where the second one is to listen.
    vmms: Option<Vmms>,
    /// The target may serve the VM: it was asked to, now or by a command that was interrupted.
    may_be_active: bool,
}

struct Vmms {
    source: Qmp,
    target: Qmp,
    uri: String,
    bytes_per_second: Option<u64>,
}

/// How it went.
#[derive(Debug, Default)]
struct Report {
    bytes_online: u64,
    bytes_frozen: u64,
    copying: Duration,
    /// From the device's unplugging, or the end of the cell, until it is served and plugged again.
    freeze: Duration,
    /// The VMM's part of that.
    vmm: Duration,
}

/// Moves a VM.
pub async fn run(source: Channel, target: Channel, options: Migrate, json: bool) -> Result<(), Failure> {
    let Migrate { vm, to, qmp, to_qmp, migrate_uri, bandwidth, keep_source } = options;
    let vmms = match (qmp, to_qmp, migrate_uri) {
        (Some(source), Some(target), Some(uri)) => Some(vmms(source, target, uri, bandwidth).await?),
        _ => None,
    };
    let mut ends = Ends {
        source_vms: VmsClient::new(source.clone()),
        target_vms: VmsClient::new(target.clone()),
        source: MigrationsClient::new(source),
        target: MigrationsClient::new(target).max_encoding_message_size(MESSAGE_BYTES_MAX),
        vmms,
        may_be_active: false,
    };
    let mut attempts = 0;
    let report = loop {
        attempts += 1;
        let leave = LeaveRequest { name: vm.clone(), to: to.clone() };
        let mut departure = ends.source.leave(leave).await?.into_inner();
        departure.from = hostname();
        ends.may_be_active = departure.frozen;
        let wanted = MigrationRequest { name: vm.clone(), token: departure.token.clone() };
        let failure = match ends.go(departure, &wanted).await {
            Ok(report) => break report,
            Err(failure) => failure,
        };
        if let Err(next) = ends.take_back(&wanted).await {
            return Err(Failure::Halfway { reason: failure.to_string(), next: next.to_string() });
        }
        let is_void = matches!(&failure, Failure::Refused(status) if status.code() == Code::Aborted);
        if !is_void || attempts == ATTEMPTS {
            return Err(failure);
        }
    };
    if !keep_source && let Some(vmms) = &mut ends.vmms {
        // What is left there is a guest without memory of what happened since.
        vmms.source.end().await?;
    }
    let platform = report.freeze.saturating_sub(report.vmm);
    let milliseconds = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
    let text = format!(
        "{vm} is served by {to}: {} bytes copied while it ran in {:.1?}, {} while it was frozen for {:.1?}, of which {:.1?} VAMOS's\n",
        report.bytes_online, report.copying, report.bytes_frozen, report.freeze, platform
    );
    let figures = json!({
        "vm": vm,
        "to": to,
        "bytes_online": report.bytes_online,
        "bytes_frozen": report.bytes_frozen,
        "copying_ms": milliseconds(report.copying),
        "freeze_ms": milliseconds(report.freeze),
        "vmm_ms": milliseconds(report.vmm),
        "platform_ms": milliseconds(platform),
        "attempts": attempts,
    });
    print(json, &figures, &text);
    Ok(())
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Copies pieces to the target, several at a time; how many bytes they were.
async fn import(
    target: &Side,
    wanted: &MigrationRequest,
    pieces: tonic::Streaming<Chunk>,
) -> Result<u64, Failure> {
    let sent = pieces.map_err(Failure::from).map_ok(|chunk| {
        let (mut target, MigrationRequest { name, token }) = (target.clone(), wanted.clone());
        async move {
            let bytes = chunk.content.len() as u64;
            target.import(ImportRequest { name, token, chunk: Some(chunk) }).await?;
            Ok(bytes)
        }
    });
    sent.try_buffered(PIECES).try_fold(0, |sum, bytes| async move { Ok(sum + bytes) }).await
}

async fn vmms(source: PathBuf, target: PathBuf, uri: String, bytes: Option<u64>) -> Result<Vmms, Failure> {
    let mut source = Qmp::connect(&source).await?;
    let target = Qmp::connect(&target).await?;
    // Nothing is begun that QEMU would not do.
    let status = source.status().await?;
    if !matches!(status.as_str(), "running" | "paused" | "postmigrate") {
        return Err(Failure::Vmm(format!("the source's QEMU is in state {status}, it must be running")));
    }
    Ok(Vmms { source, target, uri, bytes_per_second: bytes })
}

impl Ends {
    /// From the copy to the end of the source. What fails before `Activate` can be taken back.
    async fn go(&mut self, departure: Departure, wanted: &MigrationRequest) -> Result<Report, Failure> {
        let mut report = Report::default();
        let arrived = self.target.arrive(departure).await?.into_inner();
        if !arrived.active {
            let begun = Instant::now();
            let pieces = self.source.export(wanted.clone()).await?.into_inner();
            report.bytes_online = import(&self.target, wanted, pieces).await?;
            self.target.flush(wanted.clone()).await?;
            report.copying = begun.elapsed();
            self.hand_over(wanted, &mut report).await?;
        }
        self.settle(wanted, &mut report).await?;
        self.source.forget(wanted.clone()).await?;
        Ok(report)
    }

    /// Freezes the VM and makes it the target's.
    async fn hand_over(&mut self, wanted: &MigrationRequest, report: &mut Report) -> Result<(), Failure> {
        let frozen = Instant::now();
        if let Some(vmms) = &mut self.vmms {
            vmms.source.unplug(DEVICE, CHARDEV).await?;
            report.vmm = frozen.elapsed();
        }
        // The cell has ended when the answer begins: what may fail for want of a good copy fails before QEMU moves.
        let pieces = self.source.freeze(wanted.clone()).await?.into_inner();
        let mut target = self.target.clone();
        let volume = async {
            let bytes = import(&self.target, wanted, pieces).await?;
            target.flush(wanted.clone()).await?;
            Ok::<_, Failure>(bytes)
        };
        let vmms = &mut self.vmms;
        let memory = async {
            let begun = Instant::now();
            if let Some(vmms) = vmms {
                vmms.migrate().await?;
            }
            Ok::<_, Failure>(begun.elapsed())
        };
        // Both to their ends: nothing can be taken back from under QEMU's hands.
        let (volume, memory) = tokio::join!(volume, memory);
        (report.bytes_frozen, report.vmm) = (volume?, report.vmm + memory?);
        // A target that has died since is found out while all can still be taken back.
        self.target.flush(wanted.clone()).await?;
        self.may_be_active = true;
        self.target.activate(wanted.clone()).await?;
        report.freeze = frozen.elapsed();
        Ok(())
    }

    /// Plugs the device in at the target.
    async fn settle(&mut self, wanted: &MigrationRequest, report: &mut Report) -> Result<(), Failure> {
        let Some(vmms) = &mut self.vmms else { return Ok(()) };
        let begun = Instant::now();
        let vm = self.target_vms.get(GetVmRequest { name: wanted.name.clone() }).await?.into_inner();
        let asked = Instant::now();
        vmms.target.plug(DEVICE, CHARDEV, &vm.socket).await?;
        report.vmm += asked.elapsed();
        report.freeze += begun.elapsed();
        Ok(())
    }

    /// The VM stays at the source, unless the target has it already.
    async fn take_back(&mut self, wanted: &MigrationRequest) -> Result<(), Failure> {
        match self.target.drop(wanted.clone()).await {
            Ok(answer) if answer.get_ref().active => return Err(Failure::Vmm("the target has it".into())),
            Ok(_) => {}
            // It was never asked to serve the VM, so it does not: a target that is dead holds nobody up.
            Err(_) if !self.may_be_active => {}
            Err(status) => return Err(status.into()),
        }
        self.source.stay(wanted.clone()).await?;
        if let Some(vmms) = &mut self.vmms {
            let vm = self.source_vms.get(GetVmRequest { name: wanted.name.clone() }).await?.into_inner();
            vmms.take_back(&vm.socket).await?;
        }
        Ok(())
    }
}

impl Vmms {
    /// Moves the guest's memory, unless an interrupted command has done that.
    async fn migrate(&mut self) -> Result<(), Failure> {
        if self.source.status().await? == MOVED {
            return Ok(());
        }
        if !self.source.is_migrating().await? {
            self.target.execute("migrate-incoming", json!({ "uri": self.uri })).await?;
            self.source.migrate(&self.uri, self.bytes_per_second).await?;
        }
        Ok(self.source.migrated().await?)
    }

    /// The guest runs at the source, with its device.
    async fn take_back(&mut self, socket: &str) -> Result<(), Failure> {
        if self.source.status().await? == MOVED {
            // It must not run twice. One that does not answer is gone.
            self.target.end().await?;
            self.source.execute("cont", json!({})).await?;
        }
        self.source.plug(DEVICE, CHARDEV, socket).await?;
        Ok(())
    }
}
