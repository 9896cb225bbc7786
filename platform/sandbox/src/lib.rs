//! Namespaces, Landlock, seccomp, rlimits and fd passing for the processes of the platform.
