//! Becoming nobody in particular: uid, gid, groups, capabilities, `no_new_privs`.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use rustix::{io::Errno, process};

/// Takes uid and gid for good. The calling thread must be the only one.
pub(crate) fn become_user(uid: u32, gid: u32) -> io::Result<String> {
    if uid == 0 || gid == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a confined process cannot be root"));
    }
    let (user, group) = (process::Uid::from_raw(uid), process::Gid::from_raw(gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    // Another process of the same uid, if there ever is one, can neither trace this one nor read its /proc.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(format!("uid {uid}, gid {gid}, no groups"))
}

/// Drops the bounding and ambient sets and forbids root's uid to mean anything, while that is still
/// permitted; the effective and permitted sets go with the change of uid and are cleared by it.
pub(crate) fn drop_capabilities() -> io::Result<String> {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The kernel knows no capability of this number, nor of a higher one.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    clear_ambient_capability_set()?;
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )?;
    Ok("none, bounding and ambient sets empty".into())
}

/// Clears what is left of the capabilities and sets `no_new_privs`.
pub(crate) fn renounce_new_privileges() -> io::Result<String> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true)?;
    Ok("set".into())
}
