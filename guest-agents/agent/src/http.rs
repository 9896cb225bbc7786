//! `http` bindings: the guest's own server, published by the host. The agent opens streams ahead of any request, and
//! hands what the edge asks on them to the server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use vamos_http_connector::{Forward, Upstream, UpstreamError, serve};
use vamos_link::Channel;
use vamos_proto::hello::Binding;
use vamos_proto::id::VsockPort;

use crate::limits::{HOST_RETRY_PAUSE, HTTP_RETRY_PAUSE_MAX, HTTP_STREAMS, HTTP_STREAMS_MAX};
use crate::shutdown::{self, Shutdown, Trigger};

/// Kind of the bindings this is about.
const KIND: &str = "http";

/// Where the server is, if a binding does not say.
const UPSTREAM: &str = "http://127.0.0.1:80";

/// What a binding publishes, as its door's settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Site {
    port: VsockPort,
    upstream: Upstream,
    streams: usize,
    epoch: u64,
}

impl Site {
    fn of(binding: &Binding) -> Result<Self, UpstreamError> {
        let setting = |name: &str| binding.door.get(name).map_or("", String::as_str);
        let upstream = match setting("upstream") {
            "" => UPSTREAM,
            given => given,
        };
        Ok(Self {
            port: VsockPort(binding.port),
            upstream: Upstream::new(upstream, setting("root"), setting("index"))?,
            streams: setting("streams").parse().unwrap_or(HTTP_STREAMS).clamp(1, HTTP_STREAMS_MAX),
            epoch: binding.epoch,
        })
    }
}

/// The way to the host, which may be another one after a while.
type Host = Arc<Mutex<Channel>>;

/// What is published.
pub struct Sites {
    host: Host,
    published: BTreeMap<String, (Site, Trigger)>,
    ending: JoinSet<()>,
}

impl Sites {
    /// Nothing yet: [`update`](Self::update) publishes.
    pub fn new(host: Channel) -> Self {
        Self { host: Arc::new(Mutex::new(host)), published: BTreeMap::new(), ending: JoinSet::new() }
    }

    /// From now on the host is reached by `host`.
    pub fn reach(&self, host: Channel) {
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = host;
    }

    /// Publishes what `bindings` say, and nothing else. What is under way on a site that is taken back is finished.
    pub fn update(&mut self, bindings: &[Binding]) {
        let mut wanted = BTreeMap::new();
        for binding in bindings.iter().filter(|binding| binding.kind == KIND) {
            match Site::of(binding) {
                Ok(site) => drop(wanted.insert(binding.name.clone(), site)),
                Err(error) => tracing::error!(binding = binding.name, %error, "cannot publish this"),
            }
        }
        let changed = |name: &String, site: &Site| wanted.get(name) != Some(site);
        let gone: Vec<String> = self
            .published
            .iter()
            .filter(|(name, (site, _))| changed(name, site))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some((_, trigger)) = self.published.remove(&name) {
                self.end(trigger);
            }
        }
        for (name, site) in wanted {
            if self.published.contains_key(&name) {
                continue;
            }
            let (trigger, shutdown) = shutdown::channel();
            let forward = Forward::new(site.upstream.clone());
            for _ in 0..site.streams {
                tokio::spawn(publish(self.host.clone(), site.port, forward.clone(), shutdown.clone()));
            }
            self.published.insert(name, (site, trigger));
        }
        while self.ending.try_join_next().is_some() {}
    }

    fn end(&mut self, trigger: Trigger) {
        trigger.begin();
        self.ending.spawn(async move { trigger.done().await });
    }

    /// Takes everything back, and waits until what is under way is done.
    pub async fn close(&mut self) {
        for (_, (_, trigger)) in std::mem::take(&mut self.published) {
            self.end(trigger);
        }
        while self.ending.join_next().await.is_some() {}
    }
}

/// Keeps one stream open.
async fn publish(host: Host, port: VsockPort, forward: Forward, mut shutdown: Shutdown) {
    let mut pause = HOST_RETRY_PAUSE;
    loop {
        let channel = host.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let opened = tokio::select! {
            opened = channel.open(port) => opened,
            () = shutdown.begun() => return,
        };
        if let Ok(stream) = opened {
            let begun = tokio::time::Instant::now();
            if let Err(error) = serve(stream, forward.clone(), shutdown.watch()).await {
                tracing::debug!(%error, "a stream of the host's broke");
            }
            // One that the host ends at once has no use for it yet.
            if begun.elapsed() > HTTP_RETRY_PAUSE_MAX {
                pause = HOST_RETRY_PAUSE;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.begun() => return,
        }
        pause = next(pause);
    }
}

fn next(pause: Duration) -> Duration {
    (pause * 2).min(HTTP_RETRY_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(door: &[(&str, &str)]) -> Result<Site, UpstreamError> {
        let door = door.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Site::of(&Binding { name: "site".into(), kind: KIND.into(), port: 2000, door, epoch: 0 })
    }

    #[test]
    fn a_site_is_what_its_door_says() {
        let usual = site(&[]).unwrap();
        assert_eq!(usual.upstream, Upstream::new(UPSTREAM, "", "").unwrap());
        assert_eq!((usual.port, usual.streams), (VsockPort(2000), HTTP_STREAMS));
        let own = site(&[("upstream", "unix:/run/app.sock"), ("streams", "99999")]).unwrap();
        assert_eq!(
            (own.upstream.address().to_string(), own.streams),
            ("unix:/run/app.sock".into(), HTTP_STREAMS_MAX)
        );
        assert!(site(&[("upstream", "app")]).is_err());
    }
}
