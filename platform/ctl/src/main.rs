//! vamosctl: the command line of the control plane.

fn main() {}
