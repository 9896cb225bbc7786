//! How a link gets a stream, and gets another one when that is lost.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use vamos_link::Channel;
use vamos_proto::id::VsockPort;

/// A stream of either kind.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A stream on its way.
pub type Dialing<'d> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Duplex>>> + Send + 'd>>;

/// Opens streams to one service.
pub trait Dial: Send + Sync + 'static {
    /// Opens one.
    fn dial(&self) -> Dialing<'_>;
}

/// The service on a port, over one channel.
pub(crate) struct ChannelPort {
    pub(crate) channel: Channel,
    pub(crate) port: VsockPort,
}

impl Dial for ChannelPort {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async move {
            let stream = self.channel.open(self.port).await?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}
