//! The guest side of the channel: opens streams over vsock or as a process guest.
