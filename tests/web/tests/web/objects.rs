//! Objects of the volume, handed off.

use std::fs;

use http::{Request, StatusCode};
use http_body_util::BodyExt;

use crate::support::{Web, byte};

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_sent_in_the_place_of_the_answer() {
    let web = Web::start().await;
    let client = web.client().await;
    let content: Vec<u8> = (0..3 << 20).map(byte).collect();
    let objects = web.path("state/volumes/web/objects/pictures");
    fs::create_dir_all(&objects).unwrap();
    fs::write(objects.join("one.png"), &content).unwrap();
    let uid = {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(web.path("state/volumes/web")).unwrap().uid()
    };
    for path in [web.path("state/volumes/web/objects"), objects.clone(), objects.join("one.png")] {
        std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
    }
    let get = |name: &str, fields: &[(&str, &str)]| {
        let mut request = Request::get(format!("/object?{name}")).header("host", "example.org");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(String::new()).unwrap()
    };
    let response = client.send(get("pictures/one.png", &[])).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (StatusCode::OK, &"image/png".parse().unwrap())
    );
    assert!(!response.headers().contains_key("vamos-object"));
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), content);
    let part = client.send(get("pictures/one.png", &[("range", "bytes=1000000-1999999")])).await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.into_body().collect().await.unwrap().to_bytes(), content[1_000_000..2_000_000]);
    let same = client.send(get("pictures/one.png", &[("if-none-match", &tag)])).await.unwrap();
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    for (name, reason) in [("pictures/two.png", "no-such-object"), ("../site.db", "no-such-object")] {
        let response = client.send(get(name, &[])).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(response.headers()["vamos-reason"], reason);
    }
}
