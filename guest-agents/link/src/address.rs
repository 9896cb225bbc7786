//! How a channel is named on a command line.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use crate::channel::Channel;
use crate::process_guest::ProcessGuest;

/// Where a channel leads: `vsock`, or `process:PATH` with the path of a VM's vhost-user socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelAddress {
    /// The vsock device of the VM this process runs in.
    Vsock,
    /// This process becomes the VM behind that vhost-user socket.
    Process(PathBuf),
}

/// A text that is no [`ChannelAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a channel: use \"vsock\" or \"process:PATH\"")]
pub struct AddressError(String);

impl ChannelAddress {
    /// Makes the channel ready for use. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// For `process:`, when the socket cannot be reached or the device's handshake fails.
    pub async fn connect(&self) -> io::Result<Channel> {
        match self {
            ChannelAddress::Vsock => Ok(Channel::Vsock),
            ChannelAddress::Process(socket) => Ok(Channel::Process(ProcessGuest::attach(socket).await?)),
        }
    }
}

impl FromStr for ChannelAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once(':') {
            None if text == "vsock" => Ok(ChannelAddress::Vsock),
            Some(("process", path)) if !path.is_empty() => Ok(ChannelAddress::Process(path.into())),
            _ => Err(AddressError(text.to_owned())),
        }
    }
}

impl fmt::Display for ChannelAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelAddress::Vsock => f.write_str("vsock"),
            ChannelAddress::Process(path) => write!(f, "process:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["vsock", "process:/run/vamos/vms/a/vhost.sock"] {
            assert_eq!(text.parse::<ChannelAddress>().unwrap().to_string(), text);
        }
        for bad in ["", "vsock:", "process", "process:", "tcp:1"] {
            assert!(bad.parse::<ChannelAddress>().is_err(), "{bad}");
        }
    }
}
