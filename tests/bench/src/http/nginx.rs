//! nginx with `proxy_cache`, one worker, set up as it is for this: keep-alive both ways, a cache in memory, a log.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, bail};
use vamos_bench::process::Pid;

use crate::Keys;

/// A running nginx. Dropped, it is gone.
pub struct Nginx {
    master: Child,
    plain: SocketAddr,
    secure: SocketAddr,
}

impl Nginx {
    /// Starts it before `origin`.
    ///
    /// # Errors
    /// If it is not installed, or does not listen.
    pub fn start(directory: &Path, origin: SocketAddr, keys: &Keys) -> anyhow::Result<Self> {
        let home = directory.join("nginx");
        std::fs::create_dir_all(home.join("cache"))?;
        // Its worker's.
        chown(home.join("cache"), Some(65534), Some(65534))?;
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let (plain, secure) = (free()?, free()?);
        let home_text = home.display();
        let configuration = format!(
            "daemon off;\nuser nobody nogroup;\nworker_processes 1;\npid {home_text}/pid;\nerror_log {home_text}/error.log;\n\
             events {{ worker_connections 1024; }}\nhttp {{\n\
             access_log {home_text}/access.log combined buffer=64k;\nsendfile on;\ntcp_nopush on;\nkeepalive_requests 100000000;\n\
             client_body_temp_path {home_text}/body;\nproxy_temp_path {home_text}/proxy;\nfastcgi_temp_path {home_text}/fastcgi;\n\
             uwsgi_temp_path {home_text}/uwsgi;\nscgi_temp_path {home_text}/scgi;\nopen_file_cache max=1000;\n\
             proxy_cache_path {home_text}/cache keys_zone=hits:10m max_size=64m;\n\
             upstream origin {{ server {origin}; keepalive 16; }}\n\
             server {{\nlisten {plain};\nlisten {secure} ssl;\nssl_certificate {};\nssl_certificate_key {};\nssl_protocols TLSv1.3;\n\
             location / {{\nproxy_pass http://origin;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
             proxy_cache hits;\nadd_header X-Cache $upstream_cache_status;\n}}\n}}\n}}\n",
            keys.certificate_file.display(),
            keys.key_file.display()
        );
        let file = home.join("nginx.conf");
        std::fs::write(&file, configuration)?;
        let master = Command::new("/usr/sbin/nginx").arg("-c").arg(&file).spawn().context("start nginx")?;
        let nginx = Self { master, plain, secure };
        for _ in 0..500 {
            if std::net::TcpStream::connect(plain).is_ok() && nginx.worker().is_ok() {
                return Ok(nginx);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "nginx does not listen: {}",
            std::fs::read_to_string(home.join("error.log")).unwrap_or_default()
        )
    }

    /// The process that answers.
    ///
    /// # Errors
    /// If there is none.
    pub fn worker(&self) -> anyhow::Result<Pid> {
        Pid(self.master.id()).descendants("nginx")?.first().copied().context("nginx has no worker")
    }

    /// Where it listens.
    pub fn listener(&self, tls: bool) -> SocketAddr {
        if tls { self.secure } else { self.plain }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.master.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.master.wait();
    }
}
