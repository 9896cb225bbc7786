//! Sessions that do nothing: what they cost the host, and whether they are there when they are wanted.

use std::fs;
use std::time::Duration;

use tokio::time::sleep;
use vamos_proto::control::VmState;
use vamos_proto::id::VsockPort;
use vamos_sql_client::Client;

use crate::support::{DATABASE, Host, number};

/// What a process has had of the host.
#[derive(Debug, Clone, Copy)]
struct Spent {
    /// Proportional set size, bytes.
    memory: u64,
    /// Clock ticks.
    processor: u64,
    /// Times a thread of it was woken.
    wakes: u64,
}

impl Spent {
    fn by(pid: u32) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
        let value = |text: &str, name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let stat = read("stat");
        // The name before may hold anything but a second parenthesis that closes.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let wakes = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().filter_map(|task| {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            Some(value(&status, "voluntary_ctxt_switches:"))
        });
        Self {
            memory: value(&read("smaps_rollup"), "Pss:") * 1024,
            processor: fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap(),
            wakes: wakes.sum(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_costs_nothing_and_is_there_when_it_is_wanted() {
    const SESSIONS: usize = 4000;
    let host = Host::with_vms(&["a"]).await;
    let guest = host.attach("a").await;
    let client = Client::connect(&guest.channel, VsockPort::FIRST_BINDING).await.unwrap();
    let first = client.open(DATABASE, "tests").await.unwrap();
    first.execute("CREATE TABLE t(x)", &[]).await.unwrap();
    let cell = host.until("a", VmState::Attached).await.status.cell_pid;
    let before = Spent::by(cell);
    let mut sessions = Vec::new();
    for _ in 1..SESSIONS {
        sessions.push(client.open(DATABASE, "tests").await.unwrap());
    }
    // Threads that the opening has woken end when nobody wants them.
    sleep(Duration::from_secs(2)).await;
    let begun = Spent::by(cell);
    sleep(Duration::from_secs(3)).await;
    let idle = Spent::by(cell);
    let each = idle.memory.saturating_sub(before.memory) / SESSIONS as u64;
    let (ticks, wakes) = (idle.processor - begun.processor, idle.wakes.saturating_sub(begun.wakes));
    println!("{SESSIONS} idle sessions: {each} bytes each; in 3 s {ticks} ticks, {wakes} wakes");
    assert!(each <= 2048, "{each} bytes each");
    assert!(ticks <= 2 && wakes <= 60, "{ticks} ticks, {wakes} wakes");
    for session in &sessions {
        assert_eq!(number(session, "SELECT count(*) FROM t").await, 0);
    }
    assert_eq!(host.vm("a").await.status.cell_pid, cell);
    host.stop().await;
}
