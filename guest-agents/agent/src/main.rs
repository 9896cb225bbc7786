//! vamos-agent: front doors inside the guest.

fn main() {}
