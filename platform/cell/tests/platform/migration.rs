//! A VM moves from one host to another and back while its sessions work, and what happens when the move fails at each
//! of its steps. The guest is this process: where its VMM would plug the device in at the target, it attaches there.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};
use vamos_host::migration::Arrived;
use vamos_host::names::ServiceName;
use vamos_host::platform::PlatformError;
use vamos_host::registry::Token;
use vamos_link::{Channel, ProcessGuest};
use vamos_proto::control::VmState;
use vamos_proto::id::VsockPort;
use vamos_sql_client::{Client, ClientError, Dial, Dialing, Session, Value};

use crate::support::{DATABASE, Host, PATIENCE, number, vm_id};

const VM: &str = "mover";

/// A guest whose device is plugged in now here, now there: opens streams through whatever device it has.
pub struct Guest {
    socket: Mutex<PathBuf>,
    device: tokio::sync::Mutex<Option<(PathBuf, Channel)>>,
}

impl Guest {
    pub fn of(socket: PathBuf) -> Arc<Self> {
        Arc::new(Self { socket: Mutex::new(socket), device: tokio::sync::Mutex::default() })
    }

    fn at(host: &Host) -> Arc<Self> {
        Self::of(host.socket(VM))
    }

    pub fn plug_at(&self, socket: PathBuf) {
        *self.socket.lock().unwrap() = socket;
    }

    fn plug(&self, host: &Host) {
        self.plug_at(host.socket(VM));
    }

    /// Takes the device away; the next stream is opened through another one.
    pub async fn unplug(&self) {
        *self.device.lock().await = None;
    }

    async fn channel(&self) -> std::io::Result<Channel> {
        let wanted = self.socket.lock().unwrap().clone();
        let mut device = self.device.lock().await;
        match &*device {
            Some((socket, channel)) if *socket == wanted => Ok(channel.clone()),
            _ => {
                *device = None;
                let guest = ProcessGuest::attach(&wanted).await.map_err(std::io::Error::other)?;
                let channel = Channel::Process(guest);
                *device = Some((wanted, channel.clone()));
                Ok(channel)
            }
        }
    }

    pub async fn session(self: &Arc<Self>) -> Session {
        self.try_session().await.unwrap()
    }

    pub async fn try_session(self: &Arc<Self>) -> Result<Session, ClientError> {
        let client = Client::dial(self.clone()).await?;
        client.open(DATABASE, "tests").await
    }
}

impl Dial for Guest {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async move {
            let opened = match self.channel().await {
                Ok(channel) => channel.open(VsockPort::FIRST_BINDING).await,
                Err(error) => Err(error),
            };
            if opened.is_err() {
                // Its back-end may be gone: the next attempt plugs it in anew.
                *self.device.lock().await = None;
            }
            Ok(Box::new(opened?) as Box<_>)
        })
    }
}

/// A client with a link of its own; how often it had to repeat a transaction.
async fn work(guest: Arc<Guest>, client: i64, rounds: i64) -> usize {
    let session = guest.session().await;
    let insert = session.prepare("INSERT INTO done VALUES (?1, ?2)").await.unwrap();
    let mut repeated = 0;
    for round in 0..rounds {
        let key = [Value::Integer(client), Value::Integer(round)];
        if round % 2 == 0 {
            assert_eq!(session.run(&insert, &key).await.unwrap().changes, 1);
            continue;
        }
        loop {
            session.execute("BEGIN IMMEDIATE", &[]).await.unwrap();
            let transaction = async {
                let total = session.execute("SELECT n + 1 FROM total", &[]).await?.rows()?.remove(0);
                session.run(&insert, &key).await?;
                session.execute("UPDATE total SET n = ?1", &total).await?;
                session.execute("COMMIT", &[]).await
            };
            match transaction.await {
                Ok(_) => break,
                Err(error) if error.sqlstate() == "40001" => repeated += 1,
                Err(error) => panic!("{error}"),
            }
            if let Err(error) = session.execute("ROLLBACK", &[]).await {
                assert_eq!(error.sqlstate(), "25P01", "{error}");
            }
        }
    }
    repeated
}

async fn prepare(guest: &Arc<Guest>) -> Session {
    let first = guest.session().await;
    for statement in [
        "CREATE TABLE done(client, round, PRIMARY KEY (client, round))",
        "CREATE TABLE total(n)",
        "INSERT INTO total VALUES (0)",
    ] {
        first.execute(statement, &[]).await.unwrap();
    }
    first
}

/// Two hosts, the VM on the first.
async fn hosts() -> (Host, Host) {
    (Host::with_vms(&[VM]).await, Host::with_vms(&[]).await)
}

/// As vamosctl does it, up to and including `last`.
async fn go(source: &Host, target: &Host, last: Step) -> Result<Token, PlatformError> {
    let name = vm_id(VM);
    let departing = source.platform.leave(&name, "target".to_owned()).await?;
    let token = departing.token;
    let steps = async {
        if last == Step::Leave {
            return Ok(());
        }
        let arrived =
            target.platform.arrive(departing.vm, departing.bindings, token, "source".into()).await?;
        if last == Step::Arrive {
            return Ok(());
        }
        if arrived == Arrived::Expected {
            let mut pieces = source.platform.export(&name, token).await?;
            while let Some(piece) = pieces.recv().await {
                target.platform.import(&name, token, piece?).await?;
            }
            target.platform.flush(&name, token).await?;
            if last == Step::Copy {
                return Ok(());
            }
            let mut pieces = source.platform.freeze(&name, token).await?;
            if last == Step::Freeze {
                return Ok(());
            }
            while let Some(piece) = pieces.recv().await {
                target.platform.import(&name, token, piece?).await?;
            }
            target.platform.flush(&name, token).await?;
            if last == Step::Tail {
                return Ok(());
            }
            target.platform.activate(&name, token).await?;
        }
        if last == Step::Activate {
            return Ok(());
        }
        source.platform.forget(&name, token).await
    };
    steps.await.map(|()| token)
}

/// What has been done when a move is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Leave,
    Arrive,
    Copy,
    Freeze,
    Tail,
    Activate,
    Forget,
}

const STEPS: [Step; 6] = [Step::Leave, Step::Arrive, Step::Copy, Step::Freeze, Step::Tail, Step::Activate];

/// Whether the VM is served there.
async fn serves(host: &Host) -> bool {
    match host.platform.vm(vm_id(VM)).await {
        Ok(view) => matches!(view.status.state, VmState::Ready | VmState::Attached),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k73_a_vm_that_moves_under_load_loses_nothing_and_no_statement_fails() {
    const CLIENTS: i64 = 8;
    const ROUNDS: i64 = 600;
    let (first, second) = hosts().await;
    let guest = Guest::at(&first);
    let session = prepare(&guest).await;
    let working: Vec<_> =
        (0..CLIENTS).map(|client| tokio::spawn(work(guest.clone(), client, ROUNDS))).collect();
    let (mut moves, mut times) = (0, Vec::new());
    let (mut here, mut there) = (&first, &second);
    while working.iter().any(|work| !work.is_finished()) || moves < 2 {
        sleep(Duration::from_millis(30)).await;
        go(here, there, Step::Forget).await.unwrap();
        let plugged = Instant::now();
        guest.plug(there);
        timeout(PATIENCE, number(&session, "SELECT 1")).await.expect("no answer");
        times.push(plugged.elapsed());
        assert!(serves(there).await && !serves(here).await);
        std::mem::swap(&mut here, &mut there);
        moves += 1;
        assert!(moves < 2_000, "the work does not come to an end");
    }
    let mut repeated = 0;
    for work in working {
        repeated += timeout(PATIENCE, work).await.expect("no end").unwrap();
    }
    times.sort();
    println!(
        "{moves} moves, {repeated} transactions repeated; plugged in to answer: {:?}",
        times[times.len() / 2]
    );
    assert_eq!(number(&session, "SELECT count(*) FROM done").await, CLIENTS * ROUNDS);
    assert_eq!(number(&session, "SELECT n FROM total").await, CLIENTS * ROUNDS / 2);
    assert_eq!(
        number(&session, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'").await,
        1
    );
    first.stop().await;
    second.stop().await;
}

/// Whatever step a driver died at: the next one goes on, and the VM ends up at the target with all that was
/// acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn k73_an_interrupted_move_goes_on_from_any_step() {
    let (first, second) = hosts().await;
    let (mut here, mut there) = (&first, &second);
    let guest = Guest::at(here);
    let session = prepare(&guest).await;
    for (round, step) in (0..).zip(STEPS) {
        let insert = format!("INSERT INTO done VALUES (0, {round})");
        session.execute(&insert, &[]).await.unwrap();
        go(here, there, step).await.unwrap();
        // Never both; and it may be neither, for that is what frozen means.
        assert!(!(serves(here).await && serves(there).await), "{step:?}");
        go(here, there, Step::Forget).await.unwrap_or_else(|error| panic!("after {step:?}: {error}"));
        assert!(serves(there).await && !serves(here).await, "{step:?}");
        guest.plug(there);
        assert_eq!(number(&session, "SELECT count(*) FROM done").await, round + 1, "{step:?}");
        std::mem::swap(&mut here, &mut there);
    }
    first.stop().await;
    second.stop().await;
}

/// Whatever step it failed at: it is taken back, and the VM goes on where it was, unless it is the target's already.
#[tokio::test(flavor = "multi_thread")]
async fn k73_a_failed_move_is_taken_back_from_any_step_before_the_target_has_the_vm() {
    let (first, second) = hosts().await;
    let (name, guest) = (vm_id(VM), Guest::at(&first));
    let session = prepare(&guest).await;
    for (round, step) in (0..).zip(STEPS) {
        let token = go(&first, &second, step).await.unwrap();
        let dropped = second.platform.drop_arrival(&name, token).await.unwrap();
        if step == Step::Activate {
            assert_eq!(dropped, Arrived::Active);
            assert!(serves(&second).await && !serves(&first).await);
            break;
        }
        assert_eq!(dropped, Arrived::Expected);
        first.platform.stay(&name, token).await.unwrap();
        assert!(serves(&first).await && !serves(&second).await, "{step:?}");
        assert!(second.platform.vm(name.clone()).await.is_err(), "nothing is left at the target");
        let insert = format!("INSERT INTO done VALUES (1, {round})");
        session.execute(&insert, &[]).await.unwrap();
        assert_eq!(number(&session, "SELECT count(*) FROM done").await, round + 1, "{step:?}");
    }
    first.stop().await;
    second.stop().await;
}

/// A source that is resumed after the take-over: nothing is accepted there any more, by any way in.
#[tokio::test(flavor = "multi_thread")]
async fn k73_a_source_that_is_resumed_after_the_take_over_serves_nothing() {
    let (first, second) = hosts().await;
    let (name, guest) = (vm_id(VM), Guest::at(&first));
    let session = prepare(&guest).await;
    let old = guest.channel().await.unwrap();
    let token = go(&first, &second, Step::Activate).await.unwrap();
    guest.plug(&second);
    session.execute("INSERT INTO done VALUES (2, 2)", &[]).await.unwrap();
    // The rings of before, a new front-end, another cell, another vamosd.
    assert!(timeout(PATIENCE, old.open(VsockPort::FIRST_BINDING)).await.unwrap().is_err());
    assert!(ProcessGuest::attach(&first.socket(VM)).await.is_err());
    for refused in [
        first.platform.replace_cell(&name, None).await.unwrap_err(),
        first.platform.stay(&name, Token([9; 16])).await.unwrap_err(),
    ] {
        let said = refused.to_string();
        assert!(said.contains("it left for target") || said.contains("another migration"), "{said}");
    }
    let first = first.restart().await;
    let view = first.vm(VM).await;
    assert_eq!(view.status.state, VmState::Away);
    assert!(view.status.detail.contains("it left for target"), "{}", view.status.detail);
    assert!(ProcessGuest::attach(&first.socket(VM)).await.is_err());
    // What it has left of the volume is as it was at the hand-over.
    let copy = Connection::open(first.volume(VM).join(format!("{DATABASE}.db"))).unwrap();
    let rows: i64 = copy.query_row("SELECT count(*) FROM done", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
    drop(copy);
    first.platform.forget(&name, token).await.unwrap();
    assert!(!first.volume(VM).exists());
    assert_eq!(number(&session, "SELECT count(*) FROM done").await, 1);
    first.stop().await;
    second.stop().await;
}

/// The same many times over, there and back, with a write under way at the instant of each take-over.
#[tokio::test(flavor = "multi_thread")]
async fn k73_no_source_accepts_a_write_after_any_of_many_take_overs() {
    const MOVES: i64 = 30;
    let (first, second) = hosts().await;
    let (mut here, mut there) = (&first, &second);
    let guest = Guest::at(here);
    let session = prepare(&guest).await;
    for round in 0..MOVES {
        let old = guest.channel().await.unwrap();
        let insert = format!("INSERT INTO done VALUES (5, {round})");
        let writing = session.execute(&insert, &[]);
        let (written, token) = tokio::join!(timeout(PATIENCE, writing), async {
            let token = go(here, there, Step::Activate).await.unwrap();
            guest.plug(there);
            token
        });
        assert_eq!(written.expect("no answer").unwrap().changes, 1);
        assert!(timeout(PATIENCE, old.open(VsockPort::FIRST_BINDING)).await.unwrap().is_err());
        assert!(ProcessGuest::attach(&here.socket(VM)).await.is_err());
        here.platform.forget(&vm_id(VM), token).await.unwrap();
        std::mem::swap(&mut here, &mut there);
    }
    assert_eq!(number(&session, "SELECT count(*) FROM done").await, MOVES);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k73_a_vamosd_that_dies_does_not_change_who_has_the_vm() {
    let (first, second) = hosts().await;
    let guest = Guest::at(&first);
    let session = prepare(&guest).await;
    session.execute("INSERT INTO done VALUES (3, 3)", &[]).await.unwrap();
    go(&first, &second, Step::Tail).await.unwrap();
    let (first, second) = (first.restart().await, second.restart().await);
    assert_eq!(first.vm(VM).await.status.state, VmState::Away);
    assert_eq!(second.vm(VM).await.status.state, VmState::Arriving);
    go(&first, &second, Step::Forget).await.unwrap();
    guest.plug(&second);
    assert_eq!(number(&session, "SELECT count(*) FROM done").await, 1);
    first.stop().await;
    second.stop().await;
}

/// A cell that dies under the copy makes it void; the VM goes on, and the next attempt succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn k73_a_cell_killed_while_its_volume_is_copied_voids_the_copy_and_nothing_else() {
    let (first, second) = hosts().await;
    let (name, guest) = (vm_id(VM), Guest::at(&first));
    let session = prepare(&guest).await;
    let token = go(&first, &second, Step::Copy).await.unwrap();
    let before = first.vm(VM).await.status;
    kill_process(Pid::from_raw(before.cell_pid as i32).unwrap(), Signal::KILL).unwrap();
    session.execute("INSERT INTO done VALUES (4, 4)", &[]).await.unwrap();
    let refused = first.platform.freeze(&name, token).await.unwrap_err();
    assert!(refused.to_string().contains("was replaced while its volume was copied"), "{refused}");
    session.execute("INSERT INTO done VALUES (4, 5)", &[]).await.unwrap();
    go(&first, &second, Step::Forget).await.unwrap();
    guest.plug(&second);
    assert_eq!(number(&session, "SELECT count(*) FROM done").await, 2);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k73_two_hosts_do_not_both_get_a_vm_and_nothing_is_put_over_an_old_volume() {
    let (first, second) = hosts().await;
    let third = Host::with_vms(&[VM]).await;
    let name = vm_id(VM);
    let refused = go(&first, &third, Step::Forget).await.unwrap_err();
    assert!(refused.to_string().contains("VM mover is on this host"), "{refused}");
    fs::create_dir_all(second.volume(VM)).unwrap();
    let refused = go(&first, &second, Step::Forget).await.unwrap_err();
    assert!(refused.to_string().contains("holds the volume of an earlier VM"), "{refused}");
    fs::remove_dir(second.volume(VM)).unwrap();
    // A move that is begun again voids the one before.
    let old = go(&first, &second, Step::Copy).await.unwrap();
    let new = go(&first, &second, Step::Copy).await.unwrap();
    for refused in [
        first.platform.freeze(&name, old).await.map(drop),
        second.platform.flush(&name, old).await,
        second.platform.activate(&name, old).await.map(drop),
    ] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("another migration"), "{refused}");
    }
    let refused = first.platform.unbind(name.clone(), ServiceName::new(DATABASE).unwrap()).await.unwrap_err();
    assert!(refused.to_string().contains("is leaving"), "{refused}");
    first.platform.stay(&name, new).await.unwrap();
    assert!(serves(&first).await && !serves(&second).await);
    for host in [first, second, third] {
        host.stop().await;
    }
}
