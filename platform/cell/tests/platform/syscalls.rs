//! The list of system calls against what a working cell really asks for.
