//! THREATS, group C: frames and sessions that break the rules. (26 and 28 come with resumed sessions.)

mod support;

use std::time::{Duration, Instant};

use prost::Message;
use support::{Client, Host};
use vamos_proto::frame::{Header, SEQUENCE_MAX};
use vamos_service::ServiceError;
use vamos_sql_protocol::{Kind, Value, message};
use vamos_sql_server::SqlConfig;
use vamos_sqlite::SqliteConfig;

const EXECUTE: u16 = Kind::Execute as u16;

/// The session broke the protocol: it has been told so and is no more, and the link goes on.
async fn is_ended(client: &mut Client, session: u32, sequence: u64) {
    let error = client.error(session, sequence).await;
    assert_eq!(error.sqlstate, "08P01", "{error:?}");
    client.send_raw(session, 1_000, EXECUTE, &support::execute("SELECT 1", &[]).encode_to_vec()).await;
    assert_eq!(client.error(session, 1_000).await.sqlstate, "08003");
    client.send_raw(0, 77, Kind::Ping as u16, &[]).await;
    assert_eq!(client.reply(0, 77).await.0, Kind::Pong);
}

fn is_broken_protocol(ended: Result<(), ServiceError>) -> bool {
    matches!(ended, Err(ServiceError::Protocol { .. }))
}

#[tokio::test]
async fn c23_lengths_that_lie() {
    let host = Host::start();
    let mut client = host.session().await;
    client.send_raw(1, 2, EXECUTE, &[]).await;
    is_ended(&mut client, 1, 2).await;

    let mut client = host.session().await;
    let header = Header { length: u32::MAX, session: 1, sequence: 2, kind: EXECUTE };
    client.write(&header.encode()).await;
    assert_eq!(client.error(1, 2).await.sqlstate, "08P01");
    assert!(client.next_frame().await.is_none(), "the stream is closed");
    assert!(is_broken_protocol(client.end().await));

    let mut client = host.session().await;
    let header = Header { length: 100, session: 1, sequence: 2, kind: EXECUTE };
    client.write(&header.encode()).await;
    client.write(b"only some of it").await;
    assert!(is_broken_protocol(client.end().await));
    assert_eq!(host.service.sessions(), 0);
}

#[tokio::test]
async fn c23_bodies_and_blocks_that_are_none() {
    let host = Host::start();
    for body in [
        vec![0xff; 40],
        message::Execute {
            text: Some("SELECT ?".into()),
            parameters: vec![9; 20].into(),
            ..Default::default()
        }
        .encode_to_vec(),
        message::Execute {
            text: Some("SELECT ?".into()),
            parameters: vec![1, 0, 0, 0, 1, 0, 99].into(),
            ..Default::default()
        }
        .encode_to_vec(),
        message::Execute {
            text: Some("SELECT ?".into()),
            parameters: vec![1, 0, 0, 0, 1, 0, 0, 0].into(),
            ..Default::default()
        }
        .encode_to_vec(),
    ] {
        let mut client = host.session().await;
        client.send_raw(1, 2, EXECUTE, &body).await;
        is_ended(&mut client, 1, 2).await;
    }
}

#[tokio::test]
async fn c24_unknown_versions_and_kinds() {
    let host = Host::start();
    for kind in [0, 13, 128, 999, u16::MAX, Kind::Result as u16, Kind::Pong as u16] {
        let mut client = host.session().await;
        client.send_raw(1, 2, kind, &[]).await;
        is_ended(&mut client, 1, 2).await;
    }
    let mut client = host.link();
    let open = |protocol| {
        message::Open { protocol, database: "catalog".into(), ..Default::default() }.encode_to_vec()
    };
    client.send_raw(5, 1, Kind::Open as u16, &open(0)).await;
    assert_eq!(client.error(5, 1).await.sqlstate, "0A000");
    client.send_raw(5, 1, Kind::Open as u16, &open(900)).await;
    let (kind, body) = client.reply(5, 1).await;
    assert_eq!((kind, message::Opened::decode(body).unwrap().protocol), (Kind::Opened, 1));
    client.send_raw(6, 1, Kind::Resume as u16, &[]).await;
    assert_eq!(client.error(6, 1).await.sqlstate, "0A000");
    client.send_raw(0, 9, EXECUTE, &[]).await;
    assert_eq!(client.error(0, 9).await.sqlstate, "08P01");
    let config = SqlConfig { database: "catalog".into(), ..SqlConfig::default() };
    let mut client = Host::with(SqliteConfig::default(), config).link();
    let open = message::Open { protocol: 1, database: "other".into(), ..Default::default() }.encode_to_vec();
    client.send_raw(1, 1, Kind::Open as u16, &open).await;
    assert_eq!(client.error(1, 1).await.sqlstate, "3D000");
}

#[tokio::test]
async fn c25_nesting() {
    let host = Host::start();
    let mut client = host.session().await;
    // Field 15 as a group that begins 10,000 times.
    client.send_raw(1, 2, EXECUTE, &[0x7b; 10_000]).await;
    is_ended(&mut client, 1, 2).await;
}

#[tokio::test]
async fn c27_sequences_that_are_not_next() {
    let host = Host::start();
    for sequence in [0, 1, 3, 4_000, SEQUENCE_MAX] {
        let mut client = host.session().await;
        client.send_raw(1, sequence, EXECUTE, &support::execute("SELECT 1", &[]).encode_to_vec()).await;
        is_ended(&mut client, 1, sequence).await;
    }
    // The last number there is, reached honestly, is the end as well.
    let mut client = host.link();
    let open =
        message::Open { protocol: 1, database: "catalog".into(), ..Default::default() }.encode_to_vec();
    client.send_raw(1, SEQUENCE_MAX - 1, Kind::Open as u16, &open).await;
    assert_eq!(client.reply(1, SEQUENCE_MAX - 1).await.0, Kind::Opened);
    client.send_raw(1, SEQUENCE_MAX, EXECUTE, &support::execute("SELECT 1", &[]).encode_to_vec()).await;
    is_ended(&mut client, 1, SEQUENCE_MAX).await;
}

#[tokio::test]
async fn c27_a_violation_ends_what_is_under_way_and_nothing_else() {
    let host = Host::start();
    let mut client = host.link();
    client.open(1).await;
    client.open(2).await;
    client.run("CREATE TABLE t (a)").await;
    client.try_with(2, "BEGIN IMMEDIATE", &[]).await.unwrap();
    client.try_with(2, "INSERT INTO t VALUES (1)", &[]).await.unwrap();
    client.send_raw(2, 900, EXECUTE, &[]).await;
    assert_eq!(client.error(2, 900).await.sqlstate, "08P01");
    client.run("INSERT INTO t VALUES (2)").await;
    assert_eq!(client.rows("SELECT a FROM t").await, [[Value::Integer(2)]]);
    client.open(3).await;
}

#[tokio::test]
async fn c29_a_frame_a_byte_at_a_time() {
    let config = SqlConfig { frame_deadline: Duration::from_millis(200), ..SqlConfig::default() };
    let host = Host::with(SqliteConfig::default(), config);
    let mut client = host.session().await;
    let started = Instant::now();
    let header = Header { length: 50, session: 1, sequence: 2, kind: EXECUTE }.encode();
    for byte in &header[..8] {
        client.write(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(client.error(0, 0).await.sqlstate, "08P01");
    assert!(client.next_frame().await.is_none());
    assert!(started.elapsed() >= Duration::from_millis(200) && started.elapsed() < Duration::from_secs(5));
    assert!(is_broken_protocol(client.end().await));
    // Silence between frames is nothing to complain about.
    let mut client = host.session().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(client.rows("SELECT 1").await.len(), 1);
}

#[tokio::test]
async fn c30_sessions_beyond_the_quota() {
    let config = SqlConfig { sessions_max: 8, ..SqlConfig::default() };
    let host = Host::with(SqliteConfig::default(), config);
    let mut client = host.link();
    for session in 1..=8 {
        client.open(session).await;
    }
    let open =
        message::Open { protocol: 1, database: "catalog".into(), ..Default::default() }.encode_to_vec();
    for session in 9..20_000 {
        client.send_raw(session, 1, Kind::Open as u16, &open).await;
        assert_eq!(client.error(session, 1).await.sqlstate, "53300");
    }
    let mut other = host.link();
    other.send_raw(1, 1, Kind::Open as u16, &open).await;
    assert_eq!(other.error(1, 1).await.sqlstate, "53300");
    assert_eq!(host.service.sessions(), 8);
    client.end().await.unwrap();
    other.open(2).await;
}

#[tokio::test]
async fn a_binding_is_paced() {
    let config = SqlConfig { operations_per_second: Some(50), ..SqlConfig::default() };
    let host = Host::with(SqliteConfig::default(), config);
    let mut client = host.session().await;
    let started = Instant::now();
    let mut sent = Vec::new();
    for _ in 0..80 {
        sent.push(client.send_execute(1, "SELECT 1", &[]).await);
    }
    for sequence in sent {
        client.result(1, sequence).await.unwrap();
    }
    assert!(started.elapsed() > Duration::from_millis(400), "{:?}", started.elapsed());
}

/// Numbers and names in frames never reach another binding's data.
#[tokio::test]
async fn t06_two_tenants_guess_each_others_ids() {
    let config = |name: &str| SqlConfig { database: name.into(), ..SqlConfig::default() };
    let ada = Host::with(SqliteConfig::default(), config("catalog"));
    let bob = Host::with(SqliteConfig::default(), config("other"));
    let mut client = ada.link();
    let opened = client.open(7).await;
    client.try_with(7, "CREATE TABLE secret (a)", &[]).await.unwrap();
    client.try_with(7, "BEGIN", &[]).await.unwrap();
    let mut thief = bob.link();
    for session in 1..50 {
        thief
            .send_raw(session, 4, EXECUTE, &support::execute("SELECT * FROM secret", &[]).encode_to_vec())
            .await;
        assert_eq!(thief.error(session, 4).await.sqlstate, "08003");
    }
    let open =
        message::Open { protocol: 1, database: "catalog".into(), ..Default::default() }.encode_to_vec();
    thief.send_raw(7, 1, Kind::Open as u16, &open).await;
    assert_eq!(thief.error(7, 1).await.sqlstate, "3D000");
    let resume = support::resume(&opened, "other", 3, &[]);
    thief.send_raw(7, 4, Kind::Resume as u16, &resume.encode_to_vec()).await;
    assert_eq!(thief.error(7, 4).await.sqlstate, "28000");
    let open = message::Open { protocol: 1, database: "other".into(), ..Default::default() }.encode_to_vec();
    thief.send_raw(1, 1, Kind::Open as u16, &open).await;
    let (_, body) = thief.reply(1, 1).await;
    assert_ne!(message::Opened::decode(body).unwrap().key, opened.key);
    thief.send_raw(1, 2, EXECUTE, &support::execute("SELECT * FROM secret", &[]).encode_to_vec()).await;
    assert_eq!(thief.error(1, 2).await.sqlstate, "42P01");
}
