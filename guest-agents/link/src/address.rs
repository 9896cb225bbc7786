//! How a user names a channel.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Channel, ProcessGuest};

/// How to reach the host, as a user writes it: `vsock`, or `process:` and the path of a VM's
/// vhost-user socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelAddress {
    /// `vsock`
    Vsock,
    /// `process:PATH`
    Process(PathBuf),
}

/// Neither `vsock` nor `process:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no channel: write \"vsock\", or \"process:\" and the path of a vhost-user socket")]
pub struct ChannelAddressError(String);

impl FromStr for ChannelAddress {
    type Err = ChannelAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "vsock" => Ok(Self::Vsock),
            Some(("process", path)) if !path.is_empty() => Ok(Self::Process(path.into())),
            _ => Err(ChannelAddressError(text.to_owned())),
        }
    }
}

impl fmt::Display for ChannelAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock => f.write_str("vsock"),
            Self::Process(path) => write!(f, "process:{}", path.display()),
        }
    }
}

impl ChannelAddress {
    /// Makes ready to open streams. For `process:` this attaches the device; it must be called in
    /// the runtime that will use the streams.
    ///
    /// # Errors
    /// Whatever kept the device from being attached.
    pub async fn connect(&self) -> io::Result<Channel> {
        match self {
            Self::Vsock => Ok(Channel::Vsock),
            Self::Process(path) => ProcessGuest::attach(path).await.map(Channel::Process),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in ["vsock", "process:/run/vamos/vms/a/vhost.sock", "process:relative:with:colons"] {
            assert_eq!(text.parse::<ChannelAddress>().unwrap().to_string(), text);
        }
        for text in ["", "vsock:", "process:", "process", "tcp:1", " vsock"] {
            assert!(text.parse::<ChannelAddress>().is_err(), "{text:?}");
        }
    }
}
