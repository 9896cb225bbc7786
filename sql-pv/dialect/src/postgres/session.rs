//! What a translation needs to know of the session it is for.

use super::settings::Settings;

/// A session as its statements can ask about it.
#[derive(Debug, Clone, Copy)]
pub struct SessionView<'a> {
    /// The database the session is connected to.
    pub database: &'a str,
    /// Every database of this front door.
    pub databases: &'a [&'a str],
    /// The user name the client gave; it decides nothing.
    pub user: &'a str,
    /// The process id the client was told, as in its cancel requests.
    pub backend_pid: i32,
    /// The session's settings.
    pub settings: &'a Settings,
}
