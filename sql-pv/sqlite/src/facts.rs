//! What the engine has learned about a text: remembered across sessions and connections, forgotten at
//! any time, and distrusted as soon as the schema has changed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use vamos_sql_protocol::message::Column;

use crate::limits::{FACTS_MAX, FACTS_TEXT_BYTES_MAX};
use crate::text::{self, Kind};

const UNKNOWN: u8 = 0;
const QUICK: u8 = 1;
const SLOW: u8 = 2;

/// What SQLite said of a statement, at one version of the schema.
#[derive(Debug)]
pub(crate) struct Analysis {
    /// The schema's version it was made at.
    pub(crate) schema: u64,
    pub(crate) columns: Arc<[Column]>,
    pub(crate) parameters: usize,
    pub(crate) read_only: bool,
    /// Bits of [`crate::guard::seen`].
    pub(crate) seen: u32,
}

impl Analysis {
    /// Whether any of these bits was seen.
    pub(crate) fn saw(&self, bits: u32) -> bool {
        self.seen & bits != 0
    }
}

/// A text and what is known about it.
#[derive(Debug)]
pub struct Facts {
    pub(crate) text: Arc<str>,
    pub(crate) kind: Kind,
    /// First keyword, upper case.
    pub(crate) command: &'static str,
    analysis: Mutex<Option<Arc<Analysis>>>,
    pace: AtomicU8,
    /// It undid a group's transaction once, and may not share one again.
    alone: AtomicBool,
}

impl Facts {
    fn new(text: Arc<str>) -> Self {
        let (kind, command) = text::classify(&text);
        Self {
            text,
            kind,
            command,
            analysis: Mutex::new(None),
            pace: AtomicU8::new(UNKNOWN),
            alone: AtomicBool::new(false),
        }
    }

    /// The analysis, if it was made at that version of the schema.
    pub(crate) fn analysis(&self, schema: u64) -> Option<Arc<Analysis>> {
        let analysis = self.analysis.lock().unwrap_or_else(PoisonError::into_inner);
        analysis.as_ref().filter(|analysis| analysis.schema == schema).cloned()
    }

    pub(crate) fn learn(&self, analysis: Arc<Analysis>) {
        *self.analysis.lock().unwrap_or_else(PoisonError::into_inner) = Some(analysis);
    }

    /// Whether it has always been quick enough to be run inline.
    pub(crate) fn is_quick(&self) -> bool {
        self.pace.load(Relaxed) == QUICK
    }

    /// Whether it was found to be slow.
    pub(crate) fn is_slow(&self) -> bool {
        self.pace.load(Relaxed) == SLOW
    }

    /// Notes a measured run; one slow run outweighs all quick ones.
    pub(crate) fn measured(&self, quick: bool) {
        if !quick {
            self.pace.store(SLOW, Relaxed);
        } else {
            let _ = self.pace.compare_exchange(UNKNOWN, QUICK, Relaxed, Relaxed);
        }
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Relaxed)
    }

    pub(crate) fn keep_alone(&self) {
        self.alone.store(true, Relaxed);
    }
}

/// The texts the engine remembers.
#[derive(Debug, Default)]
pub(crate) struct Interned {
    texts: Mutex<Texts>,
}

#[derive(Debug, Default)]
struct Texts {
    known: HashMap<Arc<str>, Arc<Facts>>,
    bytes: usize,
}

impl Interned {
    /// The facts of a text; new ones if it is not remembered.
    pub(crate) fn facts(&self, text: Arc<str>) -> Arc<Facts> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(facts) = texts.known.get(&text) {
            return facts.clone();
        }
        if texts.known.len() >= FACTS_MAX || texts.bytes + text.len() > FACTS_TEXT_BYTES_MAX {
            // Statements in use keep their facts; forgetting the rest at once is cheaper than order.
            texts.known.clear();
            texts.bytes = 0;
        }
        let facts = Arc::new(Facts::new(text.clone()));
        texts.bytes += text.len();
        texts.known.insert(text, facts.clone());
        facts
    }
}
