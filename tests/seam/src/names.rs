//! What can be ordered, by name.

/// Declares an enumeration whose variants have names.
macro_rules! named {
    ($(#[$about:meta])* $of:ident { $($(#[$says:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $of { $($(#[$says])* $variant,)* }

        impl $of {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// What an order calls it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

named! {
    /// A mistake that somebody could have made.
    Bug {
        /// The client: replies to a replayed transaction are not held against those of before.
        ReplayUncompared = "replay-uncompared",
        /// The client: a transaction is replayed although the service says that its COMMIT is recorded.
        ReplaysCommitted = "replays-committed",
        /// The client: what was not answered is sent again as something new.
        RepeatsAnew = "repeats-anew",
        /// The client: ROLLBACK TO is left out of a replay.
        SavepointUnreplayed = "savepoint-unreplayed",
        /// The client: requests that have not been answered are acknowledged.
        AcknowledgesAhead = "acknowledges-ahead",
        /// The client: COMMIT is sent before what it commits is answered.
        CommitUnsettled = "commit-unsettled",
        /// The service: whoever says that he is a session is.
        SealUnchecked = "seal-unchecked",
        /// The service: sessions of another generation go on.
        GenerationUnfenced = "generation-unfenced",
        /// The engine: a repeated request gets the recorded outcome, whatever it asks for now.
        DigestUnchecked = "digest-unchecked",
        /// The engine: a repeated request that was acknowledged once, and whose record is gone, is run.
        AcknowledgedRunsAgain = "acknowledged-runs-again",
        /// The engine: outcomes are not recorded.
        RecordsNothing = "records-nothing",
        /// The engine: the record is written when the data is committed.
        RecordApart = "record-apart",
        /// The engine: a write removes the records of others.
        CollectsEarly = "collects-early",
        /// The engine: a write is acknowledged before it is committed.
        AcknowledgesUncommitted = "acknowledges-uncommitted",
        /// The engine: a session goes on while its former self has something under way.
        TenureUnawaited = "tenure-unawaited",
        /// The engine: a session that goes on has the settings of a new one.
        SettingsForgotten = "settings-forgotten",
        /// The engine: a session that goes on does not know its last rowid.
        HistoryForgotten = "history-forgotten",
        /// The device: a predecessor's streams are not reset.
        ResetsNothing = "resets-nothing",
        /// The device: rings begin at their base, not where the predecessor stopped.
        RingFromBase = "ring-from-base",
        /// The device: notifications that a predecessor has seen are waited for.
        KicksMissed = "kicks-missed",
    }
}

named! {
    /// A boundary in the life of a write, of the log or of the process.
    Point {
        /// A transaction for writes is about to begin.
        Begin = "begin",
        /// A write has had its effect, in an open transaction.
        Effect = "effect",
        /// Its completion record stands beside it.
        Recorded = "recorded",
        /// A file is about to be synced; not a point of the engine's, but of the system call.
        Sync = "sync",
        /// It has been synced.
        Synced = "synced",
        /// A transaction is about to be committed.
        Commit = "commit",
        /// It has been committed and synced; nobody has been told.
        Committed = "committed",
        /// One of those who wait has been told.
        Told = "told",
        /// The log is about to be copied back.
        Checkpoint = "checkpoint",
        /// It has been.
        Checkpointed = "checkpointed",
        /// Acknowledged records have been removed, in an open transaction.
        Collected = "collected",
        /// A database is about to be recovered and opened.
        Recover = "recover",
        /// It has been recovered; nobody is served yet.
        Recovered = "recovered",
        /// A session's records have been read; it has not been told that it may go on.
        Resumed = "resumed",
    }
}
