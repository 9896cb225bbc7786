//! The vhost-user front-end: what a VMM says to a device before the guest's driver may use it.
//! Blocking, once, a dozen messages.

use std::io;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;

use vamos_proto::id::GuestCid;
use vamos_vsock::protocol::{CONFIG_BYTES, QUEUE_RX, QUEUE_TX};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vmm_sys_util::eventfd::EventFd;

use super::memory::SharedMemory;
use super::ring::{GUEST_BASE, Layout};
use crate::limits::RING_ENTRIES;

/// Rings this front-end sets up: all but the event queue.
const RINGS: usize = 2;

/// Why no device was attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The conversation failed; the device may be in use by another guest.
    #[error("{step}: is the device in use by another guest?")]
    Conversation {
        /// What was being done.
        step: &'static str,
        /// What the `vhost` crate says.
        #[source]
        source: vhost::Error,
    },
    /// The device lacks a feature that this driver cannot do without.
    #[error("the device offers no {0}")]
    Missing(&'static str),
}

impl From<AttachError> for io::Error {
    fn from(error: AttachError) -> Self {
        let kind = match error {
            AttachError::Conversation { .. } => io::ErrorKind::ConnectionAborted,
            AttachError::Missing(_) => io::ErrorKind::Unsupported,
        };
        io::Error::new(kind, error)
    }
}

/// An attached device, its rings not yet filled.
pub(crate) struct AttachedDevice {
    pub(crate) cid: GuestCid,
    pub(crate) memory: SharedMemory,
    pub(crate) layouts: [Layout; RINGS],
    pub(crate) kicks: [EventFd; RINGS],
    /// One for both rings.
    pub(crate) call: EventFd,
    /// Its end is the device's end.
    pub(crate) control: UnixStream,
    /// Keeps the conversation open.
    pub(crate) front_end: Frontend,
}

fn failed<T>(step: &'static str, outcome: Result<T, vhost::Error>) -> Result<T, AttachError> {
    outcome.map_err(|source| AttachError::Conversation { step, source })
}

/// Attaches to the device at the other end of `socket`.
pub(crate) fn attach(socket: UnixStream) -> io::Result<AttachedDevice> {
    socket.set_nonblocking(false)?;
    let control = socket.try_clone()?;
    let mut front_end = Frontend::from_stream(socket, RINGS as u64);
    let cid = negotiate(&mut front_end)?;

    let bytes = NonZeroUsize::new(Layout::total(RINGS)).ok_or(io::ErrorKind::InvalidInput)?;
    let memory = SharedMemory::new(bytes)?;
    let layouts = [Layout::of(QUEUE_RX, RINGS), Layout::of(QUEUE_TX, RINGS)];
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST_BASE,
        memory_size: memory.len() as u64,
        userspace_addr: memory.user_address(),
        mmap_offset: 0,
        mmap_handle: memory.file(),
    };
    failed("share the guest's memory", front_end.set_mem_table(&[region]).map(drop))?;

    let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
    let kicks = [event()?, event()?];
    let call = event()?;
    for (index, kick) in kicks.iter().enumerate() {
        set_up_ring(&mut front_end, index, &layouts[index], &memory, kick, &call)?;
    }
    Ok(AttachedDevice { cid, memory, layouts, kicks, call, control, front_end })
}

fn negotiate(front_end: &mut Frontend) -> Result<GuestCid, AttachError> {
    failed("own the device", front_end.set_owner())?;
    let offered = failed("ask for the device's features", front_end.get_features())?;
    let needed = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX;
    let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    if offered & needed != needed {
        return Err(AttachError::Missing("VIRTIO_F_VERSION_1 and VIRTIO_RING_F_EVENT_IDX"));
    }
    if offered & protocol == 0 {
        return Err(AttachError::Missing("VHOST_USER_F_PROTOCOL_FEATURES"));
    }
    let wanted = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::REPLY_ACK;
    let offered = failed("ask for the protocol's features", front_end.get_protocol_features())?;
    if !offered.contains(wanted) {
        return Err(AttachError::Missing("CONFIG and REPLY_ACK"));
    }
    failed("choose the protocol's features", front_end.set_protocol_features(wanted))?;
    // From here on the device says of every request whether it worked.
    front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    failed("choose the device's features", front_end.set_features(needed | protocol))?;

    let config =
        front_end.get_config(0, CONFIG_BYTES as u32, VhostUserConfigFlags::empty(), &[0; CONFIG_BYTES]);
    let (_, config) = failed("read the CID", config)?;
    let cid = config.first_chunk::<CONFIG_BYTES>().ok_or(AttachError::Missing("CID"))?;
    Ok(GuestCid(u64::from_le_bytes(*cid)))
}

fn set_up_ring(
    front_end: &mut Frontend,
    index: usize,
    layout: &Layout,
    memory: &SharedMemory,
    kick: &EventFd,
    call: &EventFd,
) -> Result<(), AttachError> {
    let at = |offset: usize| memory.user_address() + offset as u64;
    let config = VringConfigData {
        queue_max_size: RING_ENTRIES,
        queue_size: RING_ENTRIES,
        flags: 0,
        desc_table_addr: at(layout.descriptors),
        used_ring_addr: at(layout.used),
        avail_ring_addr: at(layout.available),
        log_addr: None,
    };
    failed("set a ring's size", front_end.set_vring_num(index, RING_ENTRIES))?;
    failed("set a ring's base", front_end.set_vring_base(index, 0))?;
    failed("set a ring's address", front_end.set_vring_addr(index, &config))?;
    failed("set a ring's call", front_end.set_vring_call(index, call))?;
    failed("set a ring's kick", front_end.set_vring_kick(index, kick))?;
    failed("enable a ring", front_end.set_vring_enable(index, true))
}
