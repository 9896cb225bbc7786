//! Bad inputs, group A, row 11, last part: a VMM that shrinks the memory it shared. The process
//! that maps it dies of SIGBUS; it is one VM's own cell, and another's goes on. The devices run in
//! processes of their own: this test program again, told by its environment to be one.

mod support;

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::raw::{RawGuest, TX};
use support::{CID, ECHO};
use vamos_device::{Counters, Device, DeviceConfig, Polling};
use vamos_vsock::Operation;

const ROLE: &str = "VAMOS_TEST_DEVICE_ON_STDIN";
const NAME: &str = "a11_memory_shrunk_under_a_device_kills_that_cell_alone";

fn cell() -> (Child, RawGuest) {
    let (front, back) = UnixStream::pair().unwrap();
    let program = std::env::current_exe().unwrap();
    let child = Command::new(program)
        .args([NAME, "--exact"])
        .env(ROLE, "1")
        .stdin(Stdio::from(OwnedFd::from(back)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (child, RawGuest::attach(front))
}

#[allow(unsafe_code)]
fn serve() {
    // SAFETY: the parent made standard input a connected socket, and nothing else here uses it.
    let control = unsafe { UnixStream::from_raw_fd(0) };
    let config = DeviceConfig { cid: CID, polling: Polling::Off };
    let services = Arc::new(support::Services::default());
    let device = Device::new(control, config, services, Arc::new(Counters::default())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(device.run()).unwrap();
}

#[test]
fn a11_memory_shrunk_under_a_device_kills_that_cell_alone() {
    if std::env::var_os(ROLE).is_some() {
        return serve();
    }
    let ((mut victim, mut hostile), (mut neighbour, mut honest)) = (cell(), cell());
    hostile.prove_alive(70);
    hostile.offer_packet(&RawGuest::header(Operation::Request, 9, ECHO));
    hostile.file.set_len(0).unwrap();
    hostile.kick(TX);
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        if let Some(status) = victim.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the device neither serves nor dies");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
    honest.prove_alive(71);
    drop(honest);
    assert!(neighbour.wait().unwrap().success());
}
