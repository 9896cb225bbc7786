//! vamos-agent: front doors inside the guest.
