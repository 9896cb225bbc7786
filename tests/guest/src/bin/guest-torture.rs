//! Clients that must not notice what is done to their host: unmodified tokio-postgres connections on the agent's
//! Unix socket, which transfer money, append to lists and insert, all at once, and then check what is there
//! against what they were told.
//!
//! `guest-torture DATABASE SECONDS`. Prints one line of figures, `name=value` each, with the times, in seconds since
//! 1970, at which clients were told that the disk is full; what is wrong is told line by line on standard error.

use std::collections::{BTreeMap, BTreeSet};
use std::env::args;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use futures::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

/// Connections of each kind.
const CLIENTS: i64 = 4;

/// Accounts, and what each begins with.
const ACCOUNTS: i64 = 8;
const BALANCE: i64 = 1_000;

/// Lists.
const LISTS: i64 = 3;

/// From one attempt to the next while the disk is full.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// What clients were told.
#[derive(Default)]
struct Told {
    /// What was acknowledged, by client and number.
    done: BTreeSet<(i64, i64)>,
    /// What each acknowledged append had read before.
    read: BTreeMap<(i64, i64), (i64, String)>,
    /// Errors that nobody should have seen.
    errors: Vec<String>,
    /// Transactions that were run again (SQLSTATE 40001).
    retried: u64,
    /// When the disk was said to be full (SQLSTATE 53100), seconds since 1970.
    full_at: Vec<u64>,
    /// What statements took.
    times: Vec<Duration>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let usage = "usage: guest-torture DATABASE SECONDS";
    let database = args().nth(1).context(usage)?;
    let seconds: u64 = args().nth(2).context(usage)?.parse().context(usage)?;
    let first = connect(&database).await?;
    set_up(&first).await?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut inserts = Vec::new();
    let mut transfers = Vec::new();
    let mut appends = Vec::new();
    for number in 0..CLIENTS {
        inserts.push(insert(connect(&database).await?, number, until));
        transfers.push(transfer(connect(&database).await?, number, until));
        appends.push(append(connect(&database).await?, number, until));
    }
    let (inserts, transfers, appends, pings) = tokio::join!(
        join_all(inserts),
        join_all(transfers),
        join_all(appends),
        ping(connect(&database).await?, until)
    );
    let (inserts, transfers, appends) = (merge(inserts), merge(transfers), merge(appends));
    let mut findings = Findings::default();
    findings.compare("inserted", &inserts, &pairs(&first, "SELECT client, n FROM inserted").await?);
    findings.compare("transfer", &transfers, &pairs(&first, "SELECT client, n FROM transfer").await?);
    balances(&first, &mut findings).await?;
    lists(&first, &appends, &mut findings).await?;
    for error in [&inserts, &transfers, &appends, &pings].into_iter().flat_map(|told| &told.errors) {
        eprintln!("a client was told: {error}");
        findings.errors += 1;
    }
    // The longest waits are those for another host process.
    let mut times: Vec<u128> = pings.times.iter().map(Duration::as_micros).collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    let waits: Vec<String> = times.iter().take(2_000).map(u128::to_string).collect();
    let full: BTreeSet<u64> =
        [&inserts, &transfers, &appends, &pings].into_iter().flat_map(|told| told.full_at.clone()).collect();
    let full: Vec<String> = full.iter().map(u64::to_string).collect();
    println!(
        "done={} retried={} lost={} duplicated={} anomalies={} client_errors={} full_at={} waits_us={}",
        inserts.done.len() + transfers.done.len() + appends.done.len(),
        transfers.retried + appends.retried,
        findings.lost,
        findings.duplicated,
        findings.anomalies,
        findings.errors,
        full.join(","),
        waits.join(",")
    );
    Ok(())
}

async fn connect(database: &str) -> Result<Client> {
    let mut config = Config::new();
    config.host_path("/run/postgresql").user("vamos").dbname(database);
    let (client, connection) = config.connect(NoTls).await.context("connecting")?;
    tokio::spawn(connection);
    Ok(client)
}

async fn set_up(client: &Client) -> Result<()> {
    client
        .batch_execute(
            "CREATE TABLE inserted (client bigint, n bigint);
             CREATE TABLE transfer (client bigint, n bigint, source bigint, target bigint, amount bigint);
             CREATE TABLE account (id bigint PRIMARY KEY, balance bigint);
             CREATE TABLE list (id bigint PRIMARY KEY, items text)",
        )
        .await?;
    for id in 0..ACCOUNTS {
        client.execute("INSERT INTO account VALUES ($1, $2)", &[&id, &BALANCE]).await?;
    }
    for id in 0..LISTS {
        client.execute("INSERT INTO list VALUES ($1, '')", &[&id]).await?;
    }
    Ok(())
}

fn merge(all: Vec<Told>) -> Told {
    all.into_iter().fold(Told::default(), |mut sum, told| {
        sum.done.extend(told.done);
        sum.read.extend(told.read);
        sum.errors.extend(told.errors);
        sum.retried += told.retried;
        sum.full_at.extend(told.full_at);
        sum
    })
}

impl Told {
    /// Whether it may be tried again, perhaps after a while. What may not is an error.
    async fn again(&mut self, error: Error, what: impl FnOnce() -> String) -> bool {
        if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) {
            self.retried += 1;
        } else if error.code() == Some(&SqlState::DISK_FULL) {
            self.full_at.extend(SystemTime::UNIX_EPOCH.elapsed().map(|since| since.as_secs()));
            tokio::time::sleep(FULL_PAUSE).await;
        } else {
            self.errors.push(format!("{}: {error:?}", what()));
            return false;
        }
        true
    }
}

/// Autocommit writes; nothing but the count of rows would tell one that was done twice.
async fn insert(client: Client, number: i64, until: Instant) -> Told {
    let mut told = Told::default();
    let mut n = 0;
    while Instant::now() < until && !client.is_closed() {
        match client.execute("INSERT INTO inserted VALUES ($1, $2)", &[&number, &n]).await {
            Ok(_) => {
                told.done.insert((number, n));
                n += 1;
            }
            Err(error) => n += i64::from(!told.again(error, || format!("insert {n} of {number}")).await),
        }
    }
    told
}

/// Runs transactions until the time is over; one that meets a change of what it read is run again.
async fn transactions<F: Future<Output = Result<(), Error>>>(
    client: &Client,
    told: &mut Told,
    number: i64,
    until: Instant,
    mut one: impl FnMut(i64) -> F,
) {
    for n in 0.. {
        if Instant::now() > until || client.is_closed() {
            return;
        }
        loop {
            let outcome = async {
                client.batch_execute("BEGIN").await?;
                one(n).await?;
                client.batch_execute("COMMIT").await
            };
            let again = match outcome.await {
                Ok(()) => {
                    told.done.insert((number, n));
                    break;
                }
                Err(error) => told.again(error, || format!("transaction {n} of {number}")).await,
            };
            if let Err(error) = client.batch_execute("ROLLBACK").await {
                told.errors.push(format!("ROLLBACK of {number}: {error:?}"));
                return;
            }
            if !again {
                break;
            }
        }
    }
}

async fn transfer(client: Client, number: i64, until: Instant) -> Told {
    let mut told = Told::default();
    let client = &client;
    transactions(client, &mut told, number, until, |n| async move {
        let (source, target) = ((number + n) % ACCOUNTS, (number * 3 + n * 5 + 1) % ACCOUNTS);
        let row = client.query_one("SELECT balance FROM account WHERE id = $1", &[&source]).await?;
        let amount = row.get::<_, i64>(0) % 7 + 1;
        let record = "INSERT INTO transfer VALUES ($1, $2, $3, $4, $5)";
        client.execute(record, &[&number, &n, &source, &target, &amount]).await?;
        let change = "UPDATE account SET balance = balance + $1 WHERE id = $2";
        client.execute(change, &[&-amount, &source]).await?;
        client.execute(change, &[&amount, &target]).await?;
        Ok(())
    })
    .await;
    told
}

async fn append(client: Client, number: i64, until: Instant) -> Told {
    let mut told = Told::default();
    let client = &client;
    let read = std::cell::RefCell::new(BTreeMap::new());
    let seen = &read;
    transactions(client, &mut told, number, until, |n| async move {
        let list = (number + n) % LISTS;
        let row = client.query_one("SELECT items FROM list WHERE id = $1", &[&list]).await?;
        let before: String = row.get(0);
        let after = format!("{before} {number}:{n}");
        client.execute("UPDATE list SET items = $1 WHERE id = $2", &[&after, &list]).await?;
        seen.borrow_mut().insert((number, n), (list, before));
        Ok(())
    })
    .await;
    told.read = read.into_inner();
    told
}

/// Something small all the time, to see how long it takes.
async fn ping(client: Client, until: Instant) -> Told {
    let mut told = Told::default();
    while Instant::now() < until && !client.is_closed() {
        let asked = Instant::now();
        if let Err(error) = client.query_one("SELECT 1", &[]).await {
            told.again(error, || "ping".to_owned()).await;
        }
        told.times.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    told
}

/// What is not as it should be.
#[derive(Default)]
struct Findings {
    lost: usize,
    duplicated: usize,
    anomalies: usize,
    errors: usize,
}

impl Findings {
    /// What was acknowledged is there, once; nothing else is, unless nobody was told of it.
    fn compare(&mut self, what: &str, told: &Told, found: &[(i64, i64)]) {
        let mut times = BTreeMap::new();
        for key in found {
            *times.entry(*key).or_insert(0_usize) += 1;
        }
        for key in told.done.iter().filter(|key| !times.contains_key(key)) {
            eprintln!("{what} {key:?} was acknowledged and is lost");
            self.lost += 1;
        }
        for (key, count) in times {
            if count > 1 {
                eprintln!("{what} {key:?} is there {count} times");
                self.duplicated += 1;
            } else if !told.done.contains(&key) && told.errors.is_empty() {
                eprintln!("{what} {key:?} is there, and was never acknowledged");
                self.anomalies += 1;
            }
        }
    }

    fn anomaly(&mut self, what: String) {
        eprintln!("{what}");
        self.anomalies += 1;
    }
}

async fn pairs(client: &Client, sql: &str) -> Result<Vec<(i64, i64)>> {
    Ok(client.query(sql, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Each balance is what the transfers make of it.
async fn balances(client: &Client, findings: &mut Findings) -> Result<()> {
    let sql = "SELECT id, balance, (SELECT coalesce(sum(amount), 0) FROM transfer WHERE target = id)
        - (SELECT coalesce(sum(amount), 0) FROM transfer WHERE source = id) FROM account";
    for row in client.query(sql, &[]).await? {
        let (id, balance, moved) = (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2));
        if balance != BALANCE + moved {
            findings.anomaly(format!("account {id} has {balance}, the transfers say {}", BALANCE + moved));
        }
    }
    Ok(())
}

/// Each acknowledged append is in its list once, right behind what its transaction had read.
async fn lists(client: &Client, told: &Told, findings: &mut Findings) -> Result<()> {
    let rows = client.query("SELECT id, items FROM list", &[]).await?;
    let lists: BTreeMap<i64, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut found = Vec::new();
    for items in lists.values() {
        for item in items.split_whitespace() {
            let Some((number, n)) = item.split_once(':') else { bail!("{item:?} in a list") };
            found.push((number.parse()?, n.parse()?));
        }
    }
    findings.compare("append", told, &found);
    for (number, n) in &told.done {
        let Some((list, before)) = told.read.get(&(*number, *n)) else { continue };
        let expected = format!("{before} {number}:{n}");
        let now = lists.get(list).map(String::as_str).unwrap_or_default();
        let follows =
            now.strip_prefix(&*expected).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        if !follows {
            findings.anomaly(format!("append {number}:{n} did not follow what it had read"));
        }
    }
    Ok(())
}
