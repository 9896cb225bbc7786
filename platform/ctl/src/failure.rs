//! How a command fails, and the exit code of each way.

use std::fmt;
use std::process::ExitCode;

/// Why nothing, or not everything, was done.
#[derive(Debug)]
pub enum Failure {
    /// vamosd answered with an error.
    Refused(tonic::Status),
    /// vamosd could not be reached, or the answer broke off.
    Unreachable(anyhow::Error),
    /// A check of `doctor` found something missing.
    Unhealthy(usize),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Refused(_) | Failure::Unhealthy(_) => ExitCode::from(1),
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(status) => f.write_str(status.message()),
            Failure::Unreachable(error) => write!(f, "{error:#}"),
            Failure::Unhealthy(missing) => write!(f, "{missing} of the checks found something missing"),
        }
    }
}
