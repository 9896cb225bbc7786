//! The access log: one line of JSON for each answer.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::limits::LOG_BUFFER_BYTES_MAX;

/// One answer.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// When the request came, seconds since 1970.
    pub time: f64,
    /// Who asked.
    pub client: IpAddr,
    /// Over TLS.
    pub tls: bool,
    /// Which version of HTTP, as "HTTP/1.1".
    pub version: &'a str,
    /// The host that was asked for, with its port if there is one.
    pub host: &'a str,
    /// What was asked.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// The answer.
    pub status: u16,
    /// Bytes of its content that were taken.
    pub bytes: u64,
    /// From the request's head to the last byte of the answer, milliseconds.
    pub duration_ms: f64,
    /// Whether the answer was sent to its end.
    pub complete: bool,
    /// Whose answer it is.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub vm: &'a str,
    /// By which binding.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub binding: &'a str,
    /// Why the answer is the edge's own.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'a str,
    /// What asked, as it says itself.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub user_agent: &'a str,
    /// Where it came from, as it says itself.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub referer: &'a str,
}

/// Where the lines go. They are collected for a moment: a log costs a system call for many requests, not for each.
#[derive(Debug)]
pub struct AccessLog {
    file: File,
    lines: Mutex<Vec<u8>>,
}

impl AccessLog {
    /// To the end of `file`.
    pub fn new(file: File) -> Self {
        Self { file, lines: Mutex::default() }
    }

    /// Notes one.
    pub fn note(&self, entry: &Entry<'_>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lines.len();
        if serde_json::to_writer(&mut *lines, entry).is_err() {
            // Nothing in an entry can fail; half of one is worse than none.
            lines.truncate(before);
            return;
        }
        lines.push(b'\n');
        if lines.len() >= LOG_BUFFER_BYTES_MAX {
            self.write(&mut lines);
        }
    }

    /// Writes what was collected.
    pub fn flush(&self) {
        self.write(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn write(&self, lines: &mut Vec<u8>) {
        if lines.is_empty() {
            return;
        }
        // A log that cannot be written must not keep anybody from being served.
        if let Err(error) = (&self.file).write_all(lines) {
            tracing::warn!(%error, lines = lines.iter().filter(|byte| **byte == b'\n').count(), "the access log has lost lines");
        }
        lines.clear();
    }
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
