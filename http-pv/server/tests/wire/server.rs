//! A server that accepts on the loopback device, on a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::sync::watch;
use vamos_http_server::accept::{Connections, Listener, accept};
use vamos_http_server::limits::{ConnectionLimits, Limits};
use vamos_http_server::tls::Certificates;

use super::Echo;

pub struct Server {
    pub address: SocketAddr,
    pub echo: Echo,
    pub connections: Arc<Connections>,
    pub draining: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(
        tls: Option<Arc<Certificates>>,
        limits: Limits,
        connection_limits: ConnectionLimits,
    ) -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let (echo, connections) = (Echo::default(), Arc::new(Connections::new(connection_limits)));
        let (draining, watched) = watch::channel(false);
        let (handler, counted) = (echo.clone(), connections.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = TcpListener::from_std(socket).unwrap();
                accept(vec![Listener { socket, tls }], handler, counted, limits, watched).await;
            });
        });
        Self { address, echo, connections, draining, thread: Some(thread) }
    }

    /// Waits until the last connection has what it asked for.
    pub fn drain(&mut self) {
        self.draining.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.drain();
    }
}
