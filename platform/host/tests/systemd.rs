//! vamosd under a service manager, which this test is: it keeps what it is given, and gives it to the next vamosd.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use hyper_util::rt::TokioIo;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::net::UnixStream;
use tonic::transport::Endpoint;
use tower::service_fn;
use vamos_proto::control::ListVmsRequest;
use vamos_proto::control::vms_client::VmsClient;

const PATIENCE: Duration = Duration::from_secs(20);

/// What the service said, and what it gave along.
fn heard(socket: &UnixDatagram) -> (String, Option<OwnedFd>) {
    let (mut text, mut space) = ([0; 4096], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))]);
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (String::from_utf8_lossy(&text[..got.bytes]).into_owned(), fd)
}

/// Starts a vamosd, with the control plane's listener if it was kept, and waits until it is ready; what it gives to be
/// kept.
fn start(directory: &Path, manager: &UnixDatagram, kept: Option<OwnedFd>) -> (Child, OwnedFd) {
    let mut command = Command::new("sh");
    // The variable names the process that the descriptors are for, which is known no earlier.
    let listed = if kept.is_some() { "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=control " } else { "" };
    command.args(["-c", &format!("{listed}exec \"$@\""), "sh", env!("CARGO_BIN_EXE_vamosd"), "--config"]);
    command.arg(directory.join("vamos.toml")).args(["--sandbox", "best-effort"]);
    command.env("NOTIFY_SOCKET", directory.join("notify")).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(fd) = kept {
        command.fd_mappings(vec![FdMapping { parent_fd: fd, child_fd: 3 }]).unwrap();
    }
    let process = command.spawn().unwrap();
    let (mut stored, mut ready) = (None, false);
    while !ready {
        let (said, fd) = heard(manager);
        if said.contains("FDSTORE=1") {
            assert!(said.contains("FDNAME=control"), "{said}");
            stored = fd;
        }
        ready = said.contains("READY=1");
    }
    (process, stored.expect("it keeps its listener for itself"))
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_who_connects_while_there_is_no_vamosd_is_answered_by_the_next() {
    let keep = tempfile::tempdir().unwrap();
    let (directory, root) = (keep.path(), keep.path().display());
    let text = format!("state_dir = '{root}/state'\nrun_dir = '{root}/run'\ncell_binary = '/bin/true'\n");
    fs::write(directory.join("vamos.toml"), text).unwrap();
    let manager = UnixDatagram::bind(directory.join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut process, mut kept) = start(directory, &manager, None);
    for _ in 0..3 {
        process.kill().unwrap();
        process.wait().unwrap();
        // There is no vamosd now.
        let socket = UnixStream::connect(directory.join("run/control.sock")).await.unwrap();
        (process, kept) = start(directory, &manager, Some(kept));
        let mut socket = Some(socket);
        let connector = service_fn(move |_: tonic::transport::Uri| {
            let socket = socket.take().ok_or_else(|| std::io::Error::other("connected once already"));
            async move { socket.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://vamosd").connect_with_connector(connector).await.unwrap();
        let mut vms = VmsClient::new(channel);
        let listed =
            tokio::time::timeout(PATIENCE, vms.list(ListVmsRequest {})).await.expect("no answer").unwrap();
        assert!(listed.into_inner().vms.is_empty());
    }
    process.kill().unwrap();
    process.wait().unwrap();
}
