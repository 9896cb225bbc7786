//! A link to one SQL service, shared by all who use it.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use vamos_link::Channel;
use vamos_proto::id::VsockPort;
use vamos_sql_protocol::{Kind, PROTOCOL, message};

use crate::call::Pending;
use crate::dial::{ChannelPort, Dial, Duplex};
use crate::error::{ClientError, LinkLoss};
use crate::link::{Link, Request};
use crate::session::Session;
use crate::sessions::{Reply, SessionRef};
use crate::tasks;

/// One link. Clones share it; it ends when the last clone and the last session are gone.
pub struct Client {
    link: Arc<Link>,
}

impl Client {
    /// Opens a stream to the service on `port` and starts a link on it. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if nothing answers there.
    pub async fn connect(channel: &Channel, port: VsockPort) -> Result<Self, ClientError> {
        Self::dial(Arc::new(ChannelPort { channel: channel.clone(), port })).await
    }

    /// Opens a stream and starts a link on it. When the stream is lost, another one is opened, and whoever
    /// uses the link does not notice. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if nothing answers there.
    pub async fn dial(dial: Arc<dyn Dial>) -> Result<Self, ClientError> {
        let stream = dial.dial().await.map_err(|error| ClientError::Connect(Arc::new(error)))?;
        Ok(Self::start(stream, Some(dial)))
    }

    /// Starts a link on a stream; it ends with that. Needs a tokio runtime.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::start(Box::new(stream), None)
    }

    fn start(stream: Box<dyn Duplex>, dial: Option<Arc<dyn Dial>>) -> Self {
        let link = Arc::new(Link::new());
        link.hold();
        let inward = tasks::begin(&link, stream);
        tokio::spawn(tasks::run(Arc::clone(&link), inward, dial));
        Self { link }
    }

    /// A round trip through the service that does nothing.
    ///
    /// # Errors
    /// [`ClientError::LinkLost`].
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.link.room(SessionRef::LINK).await;
        // Pings have no fields: any empty message encodes to their empty body.
        let body = message::Close {};
        let request = Request::awaited(SessionRef::LINK, Kind::Ping, &body, 0);
        match Pending::send(&self.link, request)?.reply().await? {
            Reply::Pong => Ok(()),
            other => Err(ClientError::UnexpectedReply(other.name())),
        }
    }

    /// Starts a session on `database`; `application` is for the operator's statistics only.
    ///
    /// # Errors
    /// [`ClientError::Sql`] if the service refuses it, [`ClientError::Limit`] if the link has as many
    /// sessions as it may have, [`ClientError::LinkLost`].
    pub async fn open(&self, database: &str, application: &str) -> Result<Session, ClientError> {
        self.link.room(SessionRef::LINK).await;
        let session = self.link.allot(database, application)?;
        let body = message::Open {
            protocol: PROTOCOL,
            database: database.to_owned(),
            application: application.to_owned(),
        };
        let request = Request::awaited(session, Kind::Open, &body, 0);
        match Pending::send(&self.link, request)?.reply().await? {
            Reply::Opened(opened) => Ok(Session::new(Arc::clone(&self.link), session, opened.engine)),
            other => Err(ClientError::UnexpectedReply(other.name())),
        }
    }

    /// Whether the link has ended.
    pub fn is_ended(&self) -> bool {
        self.link.loss().is_some()
    }

    /// Waits until the link ends, for whatever reason.
    pub async fn ended(&self) -> Arc<LinkLoss> {
        self.link.ended().await
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        self.link.hold();
        Self { link: Arc::clone(&self.link) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.link.release();
    }
}
