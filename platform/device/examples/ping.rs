//! Round trip of 64 bytes, echoed: process guest against device, and a bare Unix socket between two
//! processes, in turns, so that what else the machine does hits both alike.
//!
//! `cargo run --release -p vamos-device --example ping [ROUNDS]`; under `strace -f -c` it shows
//! the system calls of a round trip.

#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vamos_device::{Acceptor, Counters, Device, DeviceConfig, Polling};
use vamos_link::ProcessGuest;
use vamos_proto::id::{GuestCid, VsockPort};
use vamos_service::ByteStream;

struct Echo;

impl Acceptor for Echo {
    fn accept(&self, _: VsockPort, mut stream: ByteStream) -> bool {
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..bytes]).await.is_err() {
                    return;
                }
            }
        });
        true
    }
}

/// The device's process: its control socket is standard input.
fn device(polling: Polling) {
    // SAFETY: the parent made standard input a connected socket, and nobody else uses it here.
    let control = unsafe { UnixStream::from_raw_fd(0) };
    let counters = Arc::new(Counters::default());
    let config = DeviceConfig { cid: GuestCid::FIRST, polling };
    let device =
        Device::new(control, config, Arc::new(Echo), Arc::clone(&counters)).expect("make the device");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("make a runtime");
    runtime.block_on(device.run()).expect("run the device");
    eprintln!("device: {:?}", counters.snapshot());
}

/// The echo process behind the bare socket.
fn socket() {
    // SAFETY: as in `device`.
    let mut stream = unsafe { UnixStream::from_raw_fd(0) };
    let mut buffer = [0; 4096];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..bytes]).is_err() {
            return;
        }
    }
}

/// Starts the other process; its end is the socket's end.
fn child(role: &str) -> (UnixStream, Child) {
    let (ours, theirs) = UnixStream::pair().expect("make a socket pair");
    let input = std::os::fd::OwnedFd::from(theirs);
    let program = std::env::current_exe().expect("find this program");
    let child =
        Command::new(program).arg(role).stdin(Stdio::from(input)).spawn().expect("start the other process");
    (ours, child)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

async fn measure(rounds: usize, guest: ProcessGuest, mut bare: UnixStream) {
    let mut stream = guest.open(VsockPort(1024)).await.expect("open a stream");
    let (mut over_link, mut over_socket) = (Vec::new(), Vec::new());
    let (message, mut reply) = ([7u8; 64], [0u8; 64]);
    let before = guest.counters();
    for _ in 0..rounds / 100 {
        for _ in 0..100 {
            let begin = Instant::now();
            stream.write_all(&message).await.expect("write");
            stream.read_exact(&mut reply).await.expect("read");
            over_link.push(begin.elapsed());
        }
        for _ in 0..100 {
            let begin = Instant::now();
            bare.write_all(&message).expect("write");
            bare.read_exact(&mut reply).expect("read");
            over_socket.push(begin.elapsed());
        }
    }
    let counters = guest.counters();
    let (link, socket) = (median(&mut over_link), median(&mut over_socket));
    println!(
        "link {link:?}, socket {socket:?}, ratio {:.2}; kicks {:.2} and calls {:.2} a round trip",
        link.as_secs_f64() / socket.as_secs_f64(),
        (counters.kicks_sent - before.kicks_sent) as f64 / over_link.len() as f64,
        (counters.calls_received - before.calls_received) as f64 / over_link.len() as f64,
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    match first.as_deref() {
        Some("device") => return device(Polling::Off),
        Some("device-polling") => return device(Polling::Adaptive { max: Duration::from_micros(200) }),
        Some("socket") => return socket(),
        _ => {}
    }
    let rounds = first.and_then(|rounds| rounds.parse().ok()).unwrap_or(20_000);
    let role = arguments.next().unwrap_or_else(|| "device".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("make a runtime");
    runtime.block_on(async {
        let ((control, mut device), (bare, mut echo)) = (child(&role), child("socket"));
        let guest = ProcessGuest::attach_stream(control).await.expect("attach");
        tokio::spawn(measure(rounds, guest, bare)).await.expect("measure");
        device.wait().expect("wait for the device");
        echo.wait().expect("wait for the echo");
    });
}
