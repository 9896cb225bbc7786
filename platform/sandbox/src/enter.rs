//! The order in which a process gives everything up.

use std::io;
use std::path::PathBuf;

use crate::layer::{Enforcement, Layer, Outcome, Report};
use crate::namespaces::{Fork, Parent};
use crate::{ResourceLimits, identity, landlock, namespaces, resources, root, seccomp};

/// The kinds of processes that are confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Serves one VM, and talks to nobody but its device and vamosd.
    Cell,
    /// Serves clients on sockets that it is given, and keeps files in directories of its own making.
    Edge,
}

/// What a process keeps.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The directory that becomes `/volume`, by its path outside.
    pub volume: PathBuf,
    /// The identity to take; the volume must belong to it.
    pub uid: u32,
    /// The group to take.
    pub gid: u32,
    /// Whether a missing layer is an error.
    pub enforcement: Enforcement,
    /// Limits of the kernel's resources.
    pub limits: ResourceLimits,
    /// What kind of process it is, and so what else it needs.
    pub profile: Profile,
    /// Layers left out on purpose. Only tests do that, to see that the other layers hold alone.
    pub without: Vec<Layer>,
}

/// A layer could not be applied and the plan is strict.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// A wall is missing.
    #[error("sandbox layer {layer} is missing: {reason}")]
    Missing {
        /// Which.
        layer: Layer,
        /// Why.
        reason: String,
    },
    /// The process could not be split into parent and confined child.
    #[error("fork the confined process")]
    Fork(#[source] io::Error),
}

/// Which of the two processes this is. Both return from [`enter`].
#[derive(Debug)]
pub enum Entered {
    /// The process that was started, outside the pid namespace. It tells whoever started it about the
    /// child, then exits; only then does the child return from [`enter`].
    Parent(Parent),
    /// The confined process, pid 1 of its namespace.
    Confined(Report),
}

/// Confines a child of this process as `plan` says.
///
/// Must be called before a second thread exists. The child is a fork, so that it can be pid 1 of its own
/// pid namespace; with the parent gone it becomes a child of the nearest subreaper, which is how vamosd, that
/// knows it by its pidfd, can reap it.
///
/// # Errors
/// In the parent: [`EnterError::Fork`]. In the child: [`EnterError::Missing`] under a strict plan.
pub fn enter(plan: &Plan) -> Result<Entered, EnterError> {
    let mut layers = Layers { plan, report: Report::default() };
    layers.apply(Layer::Namespaces, namespaces::leave)?;
    let gate = match namespaces::fork().map_err(EnterError::Fork)? {
        Fork::Parent(parent) => return Ok(Entered::Parent(parent)),
        Fork::Child(gate) => gate,
    };
    gate.wait_for_parent_exit();
    let in_own_root = layers.apply(Layer::Root, || root::replace(plan))?;
    let volume = if in_own_root { PathBuf::from(root::VOLUME) } else { plan.volume.clone() };
    layers.apply(Layer::Resources, || resources::apply(&plan.limits))?;
    // Dropping the bounding set needs a capability that taking the identity loses; clearing the
    // remaining sets works at any time.
    layers.apply(Layer::Capabilities, identity::drop_capabilities)?;
    layers.apply(Layer::Identity, || identity::become_user(plan.uid, plan.gid))?;
    layers.apply(Layer::NoNewPrivileges, identity::renounce_new_privileges)?;
    layers.apply(Layer::Landlock, || landlock::restrict_to(&volume, plan.profile))?;
    layers.apply(Layer::Seccomp, || seccomp::install(plan.profile))?;
    Ok(Entered::Confined(layers.report))
}

struct Layers<'a> {
    plan: &'a Plan,
    report: Report,
}

impl Layers<'_> {
    /// Applies one layer and records what became of it; whether it is in force.
    fn apply(&mut self, layer: Layer, wall: impl FnOnce() -> io::Result<String>) -> Result<bool, EnterError> {
        if self.plan.without.contains(&layer) {
            self.report.0.push((layer, Outcome::Missing("left out by the plan".into())));
            return Ok(false);
        }
        match wall() {
            Ok(detail) => {
                self.report.0.push((layer, Outcome::Applied(detail)));
                Ok(true)
            }
            Err(error) if self.plan.enforcement == Enforcement::BestEffort => {
                self.report.0.push((layer, Outcome::Missing(error.to_string())));
                Ok(false)
            }
            Err(error) => Err(EnterError::Missing { layer, reason: error.to_string() }),
        }
    }
}
