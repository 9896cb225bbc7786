//! One client's connection, from its start-up to its end: takes messages, keeps the state they act on.
//!
//! `simple` and `extended` answer the two kinds of query messages; `execute` is where statements of
//! either kind meet the engine; `copy` takes the connection over while rows stream.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use pgwire::messages::response::ReadyForQuery;
use pgwire::messages::startup::{Authentication, BackendKeyData, ParameterStatus, SecretKey};
use tokio::io::{AsyncRead, AsyncWrite};
use vamos_sql_client::{Client, ClientError, Session};
use vamos_sql_dialect::postgres::{Reported, SessionView, Settings};

use super::cancel::{Cancels, Registration};
use super::error::{PgError, Severity};
use super::extended::Portal;
use super::frontend::Frontend;
use super::prepared::{Prepared, TextCache};
use super::startup::{self, Opening, Startup, StartupError};
use super::transaction::{Block, State};
use super::wire::{Wire, WireError};
use crate::databases::Databases;
use crate::limits::POSTGRES_HANDSHAKE_MAX;
use crate::shutdown::Shutdown;

/// Why a message was not dealt with.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The client's socket broke: nobody is left to be told.
    #[error("talk to a client")]
    Io(#[from] io::Error),
    /// The client is told.
    #[error(transparent)]
    Told(#[from] PgError),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure::Told(error.into())
    }
}

impl From<vamos_sql_client::BlockError> for Failure {
    fn from(error: vamos_sql_client::BlockError) -> Self {
        Failure::Told(error.into())
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Io(error) => Failure::Io(error),
            WireError::Frontend(error) => Failure::Told(error.into()),
        }
    }
}

/// What connections of one door share.
pub struct Shared {
    /// The databases there are.
    pub databases: Arc<Databases>,
    /// Who may interrupt whom.
    pub cancels: Arc<Cancels>,
}

/// A connection past its start-up.
pub(super) struct Connection<S> {
    pub(super) wire: Wire<S>,
    pub(super) session: Session,
    pub(super) settings: Settings,
    pub(super) block: Block,
    pub(super) statements: HashMap<String, Arc<Prepared>>,
    pub(super) portals: HashMap<String, Portal>,
    pub(super) texts: TextCache,
    pub(super) database: String,
    user: String,
    databases: Vec<String>,
    shared: Arc<Shared>,
    registration: Registration,
    /// After an error in the extended protocol: everything up to the next Sync is skipped.
    pub(super) skipping: bool,
    client: Client,
}

/// Serves one connection to its end.
pub async fn serve<S>(stream: S, shared: Arc<Shared>, mut shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut wire = Wire::new(stream);
    let opening = tokio::select! {
        opening = tokio::time::timeout(POSTGRES_HANDSHAKE_MAX, startup::read(&mut wire)) => opening,
        () = shutdown.begun() => return,
    };
    let refusal = match opening {
        Ok(Ok(Opening::Session(startup))) => match Connection::open(wire, startup, shared).await {
            Ok(connection) => return connection.run(shutdown).await,
            Err((broken, refusal)) => {
                wire = broken;
                refusal
            }
        },
        Ok(Ok(Opening::Cancel { pid, key })) => return shared.cancels.cancel(pid, &key),
        Ok(Ok(Opening::Nothing)) | Ok(Err(StartupError::Io(_))) => return,
        Ok(Err(StartupError::Refused(refusal))) => refusal,
        Err(_) => PgError::fatal("08P01", "start-up took too long"),
    };
    wire.put_error(&refusal, None);
    wire.close().await;
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    async fn open(wire: Wire<S>, startup: Startup, shared: Arc<Shared>) -> Result<Self, (Wire<S>, PgError)> {
        match Self::prepare(&startup, &shared).await {
            Ok((client, session, settings, registration)) => Ok(Self {
                wire,
                session,
                settings,
                block: Block::IDLE,
                statements: HashMap::new(),
                portals: HashMap::new(),
                texts: TextCache::default(),
                database: startup.database,
                user: startup.user,
                databases: shared.databases.names(),
                shared,
                registration,
                skipping: false,
                client,
            }),
            Err(refusal) => Err((wire, refusal.severity(Severity::Fatal))),
        }
    }

    async fn prepare(
        startup: &Startup,
        shared: &Shared,
    ) -> Result<(Client, Session, Settings, Registration), PgError> {
        let pairs = startup.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let settings = Settings::new(&startup.user, pairs)?;
        let database = &startup.database;
        let Some(client) = shared.databases.link(database).await? else {
            let names = shared.databases.names().join(", ");
            let message = format!("database \"{database}\" does not exist");
            return Err(
                PgError::fatal("3D000", message).hint(format!("The databases of this machine: {names}."))
            );
        };
        let application = settings.value("application_name").unwrap_or_default();
        let session = client.open(database, application).await?;
        let cancels = &shared.cancels;
        let registration = cancels.register(cancels.pid(), session.cancel_handle());
        let registration =
            registration.map_err(|error| PgError::fatal("58000", format!("no randomness: {error}")))?;
        Ok((client, session, settings, registration))
    }

    /// Greets the client and serves its messages until it leaves or is sent away.
    async fn run(mut self, mut shutdown: Shutdown) {
        let farewell = match self.serve(&mut shutdown).await {
            Ok(()) | Err(Failure::Io(_)) => None,
            Err(Failure::Told(error)) => Some(error),
        };
        if let Some(error) = farewell {
            self.wire.put_error(&error.severity(Severity::Fatal), None);
        }
        self.wire.close().await;
    }

    async fn serve(&mut self, shutdown: &mut Shutdown) -> Result<(), Failure> {
        self.wire.put(&Authentication::Ok);
        let reported = self.settings.reported();
        self.report(reported);
        let key = SecretKey::I32(self.registration.key);
        self.wire.put(&BackendKeyData::new(self.registration.pid, key));
        self.ready().await?;
        let client = self.client.clone();
        loop {
            // Between messages, and only there, a client can be told that it has to go.
            let message = tokio::select! {
                biased;
                message = self.wire.next() => message,
                _ = client.ended() => return Err(PgError::host_lost().into()),
                () = shutdown.begun() => {
                    let message = "terminating connection due to administrator command";
                    return Err(PgError::fatal("57P01", message).into());
                }
            };
            let done = match message {
                Ok(None | Some(Frontend::Terminate)) => return Ok(()),
                Ok(Some(message)) => self.handle(message).await,
                Err(error) => Err(Failure::from(error)),
            };
            match done {
                Ok(()) => {}
                Err(Failure::Told(error)) if !error.is_fatal() => self.refuse_in_extended(&error, None).await,
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn handle(&mut self, message: Frontend) -> Result<(), Failure> {
        if self.skipping && !matches!(message, Frontend::Sync) {
            return Ok(());
        }
        match message {
            Frontend::Query(text) => self.query(&text).await,
            Frontend::Parse { name, text, types } => self.parse(name, text, types).await,
            Frontend::Bind(bind) => self.bind(bind),
            Frontend::Describe(target, name) => self.describe(target, &name),
            Frontend::Execute { portal, rows } => self.execute(&portal, rows).await,
            Frontend::Close(target, name) => self.close_named(target, &name),
            Frontend::Sync => self.sync().await,
            Frontend::Flush => Ok(self.wire.flush().await?),
            // What is left of a COPY that failed.
            Frontend::CopyData(_) | Frontend::CopyDone | Frontend::CopyFail(_) => Ok(()),
            Frontend::FunctionCall => {
                let refusal = PgError::new("0A000", "function calls by OID are not supported");
                self.wire.put_error(&refusal, None);
                self.ready().await
            }
            Frontend::Terminate => Ok(()),
        }
    }

    /// Tells an error and skips what the client sent after it, up to its next Sync.
    pub(super) async fn refuse_in_extended(&mut self, error: &PgError, text: Option<&str>) {
        self.wire.put_error(error, text);
        self.skipping = true;
        self.fail_block(error).await;
    }

    /// Says that the next query may come, and lets everything out.
    pub(super) async fn ready(&mut self) -> Result<(), Failure> {
        self.wire.put(&ReadyForQuery::new(self.block.status()));
        Ok(self.wire.flush().await?)
    }

    /// Tells the client of settings it keeps track of.
    pub(super) fn report(&mut self, reported: Vec<Reported>) {
        for (name, value) in reported {
            self.wire.put(&ParameterStatus::new(name.to_owned(), value.replace('\0', "")));
        }
    }

    /// What a statement's translation may ask about the session.
    pub(super) fn translate(&self, text: &str) -> vamos_sql_dialect::postgres::Translated {
        let databases: Vec<&str> = self.databases.iter().map(String::as_str).collect();
        let view = SessionView {
            database: &self.database,
            databases: &databases,
            user: &self.user,
            backend_pid: self.registration.pid,
            settings: &self.settings,
        };
        vamos_sql_dialect::postgres::translate(text, &view)
    }

    /// The databases may have changed since the connection began.
    pub(super) fn refresh_databases(&mut self) {
        self.databases = self.shared.databases.names();
    }

    /// A statement failed: its transaction block is over, or waits for the client to end it.
    pub(super) async fn fail_block(&mut self, error: &PgError) {
        self.block.fail(error.transaction);
        if self.block.state == State::Implicit
            && let Err(failure) = self.end_transaction(false).await
        {
            tracing::debug!(%failure, "could not roll back an implicit transaction");
        }
    }
}
