//! The start of a connection: encryption declined, cancel requests taken, start-up parameters read.
//!
//! Trust is all the authentication there is: who may reach the socket is the guest's affair, and who the
//! guest is towards the host is decided by the device.

use std::io;

use bytes::{Buf, BytesMut};
use pgwire::messages::startup::NegotiateProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::PgError;
use super::frontend::Fields;
use super::wire::Wire;
use crate::limits::POSTGRES_STARTUP_BYTES_MAX;

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
const PROTOCOL_MAJOR: u32 = 3;

/// What a new connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// A session.
    Session(Startup),
    /// Interrupt another connection's statement.
    Cancel {
        /// As in BackendKeyData.
        pid: i32,
        /// As in BackendKeyData, if it is one.
        key: Vec<u8>,
    },
    /// The client left before it said anything.
    Nothing,
}

/// What a client wants of its session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Startup {
    /// The user; decides nothing.
    pub user: String,
    /// The database: the name of a binding.
    pub database: String,
    /// Settings for the session.
    pub settings: Vec<(String, String)>,
}

/// Why a connection does not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The socket broke.
    #[error("read or write a client's socket")]
    Io(#[from] io::Error),
    /// The client is told and sent away.
    #[error(transparent)]
    Refused(#[from] PgError),
}

/// Reads start-up packets until one says what the connection is for.
///
/// # Errors
/// [`StartupError`].
pub async fn read<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<Opening, StartupError> {
    let (mut ssl, mut gss) = (false, false);
    loop {
        let Some(mut packet) = packet(wire).await? else { return Ok(Opening::Nothing) };
        match packet.get_u32() {
            SSL_REQUEST if !ssl => {
                ssl = true;
                decline(wire).await?;
            }
            GSSENC_REQUEST if !gss => {
                gss = true;
                decline(wire).await?;
            }
            CANCEL_REQUEST if packet.len() >= 8 => {
                let pid = packet.get_i32();
                return Ok(Opening::Cancel { pid, key: packet.to_vec() });
            }
            code if code >> 16 == PROTOCOL_MAJOR => {
                let (startup, unknown) = parameters(packet)?;
                if code & 0xffff > 0 || !unknown.is_empty() {
                    wire.put(&NegotiateProtocolVersion::new((PROTOCOL_MAJOR << 16) as i32, unknown));
                }
                return Ok(Opening::Session(startup));
            }
            code => {
                let (major, minor) = (code >> 16, code & 0xffff);
                let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0");
                return Err(PgError::fatal("0A000", message).into());
            }
        }
    }
}

/// A packet without type: its length has been checked, 4 bytes of code are there.
async fn packet<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
) -> Result<Option<BytesMut>, StartupError> {
    let Some(mut length) = wire.take(4).await? else { return Ok(None) };
    let length = length.get_u32() as usize;
    if !(8..=POSTGRES_STARTUP_BYTES_MAX).contains(&length) {
        return Err(PgError::fatal("08P01", "invalid length of startup packet").into());
    }
    match wire.take(length - 4).await? {
        Some(packet) => Ok(Some(packet)),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Says that the connection stays as it is. Bytes that came along with the request were meant for the
/// encrypted connection; taking them for start-up parameters is how CVE-2021-23222 worked.
async fn decline<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<(), StartupError> {
    if !wire.arrived().is_empty() {
        let message = "received unencrypted data after a request for encryption";
        return Err(PgError::fatal("08P01", message).into());
    }
    wire.put_byte(b'N');
    wire.flush().await?;
    Ok(())
}

/// Reads the pairs of a start-up packet; options of later protocols are returned apart.
fn parameters(packet: BytesMut) -> Result<(Startup, Vec<String>), StartupError> {
    let malformed =
        || PgError::fatal("08P01", "invalid startup packet layout: expected terminator as last byte");
    let mut fields = Fields(packet.freeze());
    let (mut startup, mut unknown) = (Startup::default(), Vec::new());
    loop {
        let name = fields.string().map_err(|_| malformed())?;
        if name.is_empty() {
            break;
        }
        let value = fields.string().map_err(|_| malformed())?;
        match name.as_str() {
            "user" => startup.user = value,
            "database" => startup.database = value,
            "options" => options(&value, &mut startup.settings)?,
            "replication" if matches!(value.as_str(), "false" | "off" | "no" | "0") => {}
            "replication" => return Err(PgError::fatal("0A000", "replication is not supported").into()),
            _ if name.starts_with("_pq_.") => unknown.push(name),
            _ => startup.settings.push((name, value)),
        }
    }
    if fields.0.has_remaining() {
        return Err(malformed().into());
    }
    if startup.user.is_empty() {
        return Err(PgError::fatal("28000", "no PostgreSQL user name specified in startup packet").into());
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    Ok((startup, unknown))
}

/// Reads `-c name=value` and `--name=value`, as in libpq's `options`; a backslash keeps a blank.
fn options(text: &str, settings: &mut Vec<(String, String)>) -> Result<(), StartupError> {
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, words.last_mut()) {
            ('\\', Some(word)) => word.extend(characters.next()),
            (c, _) if c.is_whitespace() => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let pair = match word.strip_prefix("--").or(word.strip_prefix("-c").filter(|rest| !rest.is_empty())) {
            Some(pair) => pair.to_owned(),
            None if word == "-c" => words.next().unwrap_or_default(),
            None => {
                return Err(PgError::fatal("42601", format!("invalid command-line argument: {word}")).into());
            }
        };
        let Some((name, value)) = pair.split_once('=') else {
            return Err(PgError::fatal("42601", format!("-c {pair} requires a value")).into());
        };
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_libpq_writes_them() {
        let mut settings = Vec::new();
        options("-c search_path=a\\ b --statement-timeout=5 -cx.y=1", &mut settings).unwrap();
        let expected = [("search_path", "a b"), ("statement_timeout", "5"), ("x.y", "1")];
        assert_eq!(settings, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(options("-d", &mut settings).is_err());
    }
}
