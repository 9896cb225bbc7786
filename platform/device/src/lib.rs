//! The vhost-user vsock device: rings, streams, the only code that touches guest memory.
