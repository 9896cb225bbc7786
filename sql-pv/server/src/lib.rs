//! Sessions, cursors and flow control of paravirtual SQL, for any engine.
