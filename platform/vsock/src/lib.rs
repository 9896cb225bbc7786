//! vsock packets, credit and connection states, without I/O.
