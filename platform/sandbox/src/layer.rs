//! The layers of a sandbox and what became of each.

use std::fmt;

/// One independent wall. Each holds if any other falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Own mount, pid, network, ipc, uts and cgroup namespaces.
    Namespaces,
    /// A root file system with nothing but the volume.
    Root,
    /// rlimits.
    Resources,
    /// An unprivileged uid and gid of its own, no supplementary groups.
    Identity,
    /// No capability in any set, and none to be regained.
    Capabilities,
    /// `no_new_privs`.
    NoNewPrivileges,
    /// Landlock: files of the volume only, no TCP, no signals or abstract sockets outside.
    Landlock,
    /// The list of system calls.
    Seccomp,
}

impl Layer {
    /// Every layer, in the order they are applied.
    pub const ALL: [Layer; 8] = [
        Layer::Namespaces,
        Layer::Root,
        Layer::Resources,
        Layer::Identity,
        Layer::Capabilities,
        Layer::NoNewPrivileges,
        Layer::Landlock,
        Layer::Seccomp,
    ];

    /// The layer's name for operators.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Namespaces => "namespaces",
            Layer::Root => "root",
            Layer::Resources => "rlimits",
            Layer::Identity => "identity",
            Layer::Capabilities => "capabilities",
            Layer::NoNewPrivileges => "no-new-privileges",
            Layer::Landlock => "landlock",
            Layer::Seccomp => "seccomp",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What to do when a layer cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enforcement {
    /// Refuse to go on.
    #[default]
    Strict,
    /// Go on without it and say so.
    BestEffort,
}

/// What became of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In force; what exactly.
    Applied(String),
    /// Not in force; why.
    Missing(String),
}

/// What became of every layer that was tried, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report(pub Vec<(Layer, Outcome)>);

impl Report {
    /// The layers that are not in force.
    pub fn missing(&self) -> impl Iterator<Item = (Layer, &str)> {
        self.0.iter().filter_map(|(layer, outcome)| match outcome {
            Outcome::Missing(reason) => Some((*layer, reason.as_str())),
            Outcome::Applied(_) => None,
        })
    }
}
