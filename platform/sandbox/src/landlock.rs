//! Landlock: the volume's files and nothing else, even if a path outside could be named.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};

use crate::Profile;

/// The newest rights this policy names: those of the first ABI with scopes. A kernel with fewer enforces
/// what it has and the rest is left to the namespaces; the report says so.
const POLICY_ABI: ABI = ABI::V6;

/// What SQLite does in a volume: files, in one directory, no links, no devices, nothing executable.
const VOLUME_RIGHTS: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | WriteFile | ReadDir | RemoveFile | MakeReg | Truncate});

/// What a cache of files does besides: it sorts them into directories, and removes those.
const CACHE_RIGHTS: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeDir | RemoveDir | Refer});

/// Restricts the calling thread, and every thread it starts, to `volume`.
pub(crate) fn restrict_to(volume: &Path, profile: Profile) -> io::Result<String> {
    let rights = match profile {
        Profile::Cell => VOLUME_RIGHTS,
        Profile::Edge => VOLUME_RIGHTS | CACHE_RIGHTS,
    };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(POLICY_ABI))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(POLICY_ABI)))
        .and_then(|rules| rules.scope(Scope::from_all(POLICY_ABI)))
        .and_then(|rules| rules.create())
        .map_err(io::Error::other)?
        .add_rule(PathBeneath::new(PathFd::new(volume).map_err(io::Error::other)?, rights))
        .map_err(io::Error::other)?;
    // Missing only where the own root is missing too; then the host's node is as good.
    if let Ok(urandom) = PathFd::new("/dev/urandom") {
        rules = rules.add_rule(PathBeneath::new(urandom, AccessFs::ReadFile)).map_err(io::Error::other)?;
    }
    let status = rules.restrict_self().map_err(io::Error::other)?;
    let kernel = format!("{:?}", status.landlock);
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(format!("volume only, no TCP, scoped ({kernel})")),
        RulesetStatus::PartiallyEnforced => Ok(format!("volume only, partly: an old kernel ({kernel})")),
        RulesetStatus::NotEnforced => Err(io::Error::new(io::ErrorKind::Unsupported, kernel)),
    }
}
