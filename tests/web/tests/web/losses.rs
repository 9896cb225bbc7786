//! Cells, edges and vamosd are lost: clients are not to notice.

use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use http_body_util::BodyExt;

use crate::support::{BIG, Web, byte, kill};

#[tokio::test(flavor = "multi_thread")]
async fn idempotent_requests_survive_the_cell() {
    let web = Web::start().await;
    let client = web.client().await;
    for _ in 0..5 {
        let slow = tokio::spawn(async move { client.get("/slow").await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill(web.cell_pid().await);
        let begun = Instant::now();
        assert_eq!(client.get("/").await, (StatusCode::OK, "hello".to_owned()));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(slow.await.unwrap().0, StatusCode::OK);
    }
    let target = web.target("web").await;
    assert!(target.retried >= 5, "{target:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_not_be_repeated_is_answered_with_the_reason() {
    let web = Web::start().await;
    let client = web.client().await;
    let slow = tokio::spawn(async move {
        let request = Request::post("/slow").header("host", "example.org").body("once".to_owned()).unwrap();
        let response = client.send(request).await.unwrap();
        (response.status(), response.headers().get("vamos-reason").cloned())
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    kill(web.cell_pid().await);
    let (status, reason) = slow.await.unwrap();
    assert_eq!((status, reason.unwrap().to_str().unwrap()), (StatusCode::BAD_GATEWAY, "stream-lost"));
    let begun = Instant::now();
    assert_eq!(client.get("/").await.0, StatusCode::OK);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_its_cell_was_lost() {
    let web = Web::start().await;
    let client = web.client().await;
    let request = Request::get("/big").header("host", "example.org").body(String::new()).unwrap();
    let mut body = client.send(request).await.unwrap().into_body();
    let (mut received, mut kills) = (0, 0);
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.iter().enumerate().all(|(at, value)| *value == byte(received + at)));
        received += data.len();
        if received > (kills + 1) * BIG / 4 && kills < 3 {
            kills += 1;
            kill(web.cell_pid().await);
        }
    }
    assert_eq!((received, kills), (BIG, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_edge_is_back_with_its_routes_and_no_connect_is_refused() {
    let web = Web::start().await;
    let client = web.client().await;
    for _ in 0..3 {
        let pid = web.status().await.pid;
        kill(pid);
        let begun = Instant::now();
        // It may be of the one that dies: then the client asks again, as clients do.
        let answer = loop {
            let request = Request::get("/").header("host", "example.org").body(String::new()).unwrap();
            if let Ok(response) = client.send(request).await {
                break response;
            }
        };
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_ne!(web.status().await.pid, pid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_vamosd_takes_over_and_the_old_edge_drains() {
    let mut web = Web::start().await;
    let (client, old) = (web.client().await, web.status().await.pid);
    let request = Request::get("/big").header("host", "example.org").body(String::new()).unwrap();
    let mut download = client.send(request).await.unwrap().into_body();
    download.frame().await.unwrap().unwrap();
    web.restart();
    assert_eq!(web.client().await.address, client.address, "the listener is the same");
    let begun = Instant::now();
    assert_eq!(client.get("/").await, (StatusCode::OK, "hello".to_owned()));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_ne!(web.status().await.pid, old);
    let rest = download.collect().await.unwrap().to_bytes();
    assert!(rest.len() < BIG && rest.last() == Some(&byte(BIG - 1)));
    let end = Instant::now() + Duration::from_secs(10);
    while std::path::Path::new(&format!("/proc/{old}/root")).exists() {
        assert!(Instant::now() < end, "the old edge does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..20 {
        assert_eq!(client.get("/").await.0, StatusCode::OK);
    }
}
