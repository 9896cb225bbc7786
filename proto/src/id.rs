//! Newtypes for identities and addresses. None of them is ever taken from a frame to decide whose
//! data is meant: a VM is known by the device it speaks through.

use std::fmt;

/// The operator's name of a VM: 1 to 63 of `a-z 0-9 -`, starting with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmId(String);

/// A name that cannot be a [`VmId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a VM name: use 1 to 63 of a-z, 0-9 and '-', starting with a letter")]
pub struct VmIdError(String);

impl VmId {
    /// Checks `name` and makes it an id.
    pub fn new(name: impl Into<String>) -> Result<Self, VmIdError> {
        let name = name.into();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
        if starts_well && name.len() <= 63 && name.chars().all(allowed) {
            Ok(Self(name))
        } else {
            Err(VmIdError(name))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A guest's vsock context id (virtio 1.3, 5.10.4): 3 and above for guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestCid(pub u64);

impl GuestCid {
    /// The host's own context id, `VMADDR_CID_HOST`.
    pub const HOST: GuestCid = GuestCid(2);
    /// The first context id a guest may have.
    pub const FIRST: GuestCid = GuestCid(3);
}

/// A vsock port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VsockPort(pub u32);

impl VsockPort {
    /// The port on which every device answers `hello`.
    pub const HELLO: VsockPort = VsockPort(1);
    /// The first port given to a binding.
    pub const FIRST_BINDING: VsockPort = VsockPort(1024);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vm_names_are_checked() {
        for good in ["a", "web-1", &"a".repeat(63)] {
            assert!(VmId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "-a", "A", "a_b", "a/b", "a.b", &"a".repeat(64), "ä"] {
            assert!(VmId::new(bad).is_err(), "{bad}");
        }
    }
}
