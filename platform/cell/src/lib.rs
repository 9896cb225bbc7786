//! The host process that serves exactly one VM.
