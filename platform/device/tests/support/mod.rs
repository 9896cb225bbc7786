//! A device on a thread of its own, with services that echo, sink, source or stall, for tests.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod raw;

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vamos_device::{Acceptor, CounterSnapshot, Counters, Device, DeviceConfig, DeviceError, Polling};
use vamos_proto::id::{GuestCid, VsockPort};
use vamos_service::ByteStream;

pub const CID: GuestCid = GuestCid(3);
/// Sends back what comes.
pub const ECHO: VsockPort = VsockPort(1024);
/// Accepts, and never reads or writes.
pub const STALL: VsockPort = VsockPort(1025);
/// Nobody is here.
pub const NOBODY: VsockPort = VsockPort(1026);
/// Writes for ever, and never reads.
pub const GUSH: VsockPort = VsockPort(1027);
/// Hands the stream to the test.
pub const KEEP: VsockPort = VsockPort(1028);

/// What a test does with a stream, on the ring thread.
pub type OnKeep = Box<dyn Fn(ByteStream) + Send>;

/// The services of a test device.
#[derive(Default)]
pub struct Services {
    pub kept: Mutex<Vec<ByteStream>>,
    /// Set: `KEEP` streams go here instead, to be driven on the ring thread.
    pub on_keep: Mutex<Option<OnKeep>>,
}

impl Acceptor for Services {
    fn accept(&self, port: VsockPort, stream: ByteStream) -> bool {
        match port {
            ECHO => drop(tokio::spawn(echo(stream))),
            STALL => self.kept.lock().unwrap().push(stream),
            GUSH => drop(tokio::spawn(gush(stream))),
            KEEP => match &*self.on_keep.lock().unwrap() {
                Some(act) => act(stream),
                None => self.kept.lock().unwrap().push(stream),
            },
            _ => return false,
        }
        true
    }
}

async fn echo(mut stream: ByteStream) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(bytes) => {
                if stream.write_all(&buffer[..bytes]).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = stream.shutdown().await;
}

async fn gush(mut stream: ByteStream) {
    while stream.write_all(&[7; 16 << 10]).await.is_ok() {}
}

/// A running device.
pub struct Running {
    pub services: Arc<Services>,
    pub counters: Arc<Counters>,
    thread: Option<JoinHandle<Result<(), DeviceError>>>,
    /// The device's thread, as the kernel numbers it.
    number: i32,
}

/// Starts a device; its control socket's other end.
pub fn start() -> (Running, UnixStream) {
    start_with(Polling::Off)
}

pub fn start_with(polling: Polling) -> (Running, UnixStream) {
    let (front, back) = UnixStream::pair().unwrap();
    let services = Arc::new(Services::default());
    let counters = Arc::new(Counters::default());
    let acceptor = Arc::clone(&services) as Arc<dyn Acceptor>;
    let device =
        Device::new(back, DeviceConfig { cid: CID, polling }, acceptor, Arc::clone(&counters)).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("device".into())
        .spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(device.run())
        })
        .unwrap();
    let number = told.recv().unwrap();
    (Running { services, counters, thread: Some(thread), number }, front)
}

impl Running {
    /// The counters once the device has nothing left to do: it answers before it counts. Those of a device
    /// that is never done are read as they are after a while.
    pub fn counters(&self) -> CounterSnapshot {
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.sleeps() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        self.counters.snapshot()
    }

    /// Whether the device's thread has gone to sleep, or ended.
    fn sleeps(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", self.number));
        // The name before the state is in parentheses and may contain anything.
        stat.map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S")))
    }

    /// CPU time the device's thread has used.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.number)).unwrap();
        Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
    }

    /// Waits for the device to end; the front-end must have hung up.
    pub fn join(mut self) -> Result<(), DeviceError> {
        let thread = self.thread.take().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !thread.is_finished() {
            assert!(Instant::now() < deadline, "the device does not end: somebody is still attached");
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().expect("the device must not panic")
    }

    /// Waits until `condition` holds of the counters.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&CounterSnapshot) -> bool) -> CounterSnapshot {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let counters = self.counters.snapshot();
            if condition(&counters) {
                return counters;
            }
            assert!(Instant::now() < deadline, "{what} did not happen: {counters:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
