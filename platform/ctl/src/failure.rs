//! How a command fails, and the exit code of each way.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::qmp::QmpError;

/// Why nothing, or not everything, was done.
#[derive(Debug)]
pub enum Failure {
    /// vamosd answered with an error.
    Refused(tonic::Status),
    /// vamosd could not be reached, or the answer broke off.
    Unreachable(anyhow::Error),
    /// A file that the command names cannot be read.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A VMM did not do its part.
    Vmm(String),
    /// A migration failed, and could not be taken back.
    Halfway {
        /// What failed.
        reason: String,
        /// Why it stays as it is.
        next: String,
    },
    /// A check of `doctor` found something missing.
    Unhealthy(usize),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Refused(_) | Failure::Vmm(_) | Failure::Halfway { .. } | Failure::Unhealthy(_) => {
                ExitCode::from(1)
            }
            Failure::File { .. } => ExitCode::from(2),
            Failure::Unreachable(_) => ExitCode::from(3),
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        // A status made on this side carries the transport's error; vamosd's own has no source.
        let is_local = std::error::Error::source(&status).is_some();
        if is_local && matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown) {
            Failure::Unreachable(anyhow::Error::new(status).context("talk to vamosd"))
        } else {
            Failure::Refused(status)
        }
    }
}

impl From<QmpError> for Failure {
    fn from(error: QmpError) -> Self {
        Failure::Vmm(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::File { path, source } => write!(f, "read {}: {source}", path.display()),
            Failure::Refused(status) => f.write_str(status.message()),
            Failure::Unreachable(error) => write!(f, "{error:#}"),
            Failure::Vmm(reason) => f.write_str(reason),
            Failure::Halfway { reason, next } => {
                write!(
                    f,
                    "{reason}; and it was not taken back: {next}; run the same command again, which goes on"
                )
            }
            Failure::Unhealthy(missing) => write!(f, "{missing} of the checks found something missing"),
        }
    }
}
