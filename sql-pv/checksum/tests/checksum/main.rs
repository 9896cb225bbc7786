//! Checksums on real files: what is damaged is named, what is sound is served, and any SQLite can read it.

mod damage;
mod properties;
mod sound;
mod support;
