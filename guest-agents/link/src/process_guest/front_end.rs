//! The vhost-user front-end: hands the device this process's memory, rings and eventfds.
//!
//! Blocking, as the `vhost` crate is; it runs once, at attachment.

use std::fmt;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use vamos_proto::id::GuestCid;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::memory::Map;
use super::ring::Layout;
use crate::limits::{RECEIVE_RING_SIZE, TRANSMIT_RING_SIZE};

/// What an attachment leaves behind.
pub(super) struct Attachment {
    /// This guest's CID, as the device says.
    pub(super) cid: GuestCid,
    pub(super) receive: Events,
    pub(super) transmit: Events,
    /// The socket: its end is the device's end.
    pub(super) control: UnixStream,
    /// Keeps the front-end's half of the connection open.
    _front_end: Frontend,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("cid", &self.cid).finish_non_exhaustive()
    }
}

/// A ring's notifications, both ways.
#[derive(Debug)]
pub(super) struct Events {
    /// Driver to device.
    pub(super) kick: EventFd,
    /// Device to driver.
    pub(super) call: EventFd,
}

impl Events {
    fn new() -> io::Result<Self> {
        Ok(Self { kick: EventFd::new(EFD_NONBLOCK)?, call: EventFd::new(EFD_NONBLOCK)? })
    }

    /// A duplicate of the call, to wait for.
    #[allow(unsafe_code, reason = "vmm-sys-util gives its descriptor away only as a number")]
    pub(super) fn watch_call(&self) -> io::Result<OwnedFd> {
        let duplicate = self.call.try_clone()?.into_raw_fd();
        // SAFETY: `into_raw_fd` has just given up the only ownership of this fresh duplicate.
        Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
    }
}

/// Connects to the vhost-user socket and makes the device ready to run.
pub(super) fn attach(socket: &Path, memory: &GuestMemoryMmap, map: &Map) -> io::Result<Attachment> {
    let control = UnixStream::connect(socket)?;
    let watched = control.try_clone()?;
    let mut front_end = Frontend::from_stream(control, 2);
    let cid = negotiate(&mut front_end)?;
    let regions: Vec<_> = memory
        .iter()
        .map(VhostUserMemoryRegionInfo::from_guest_region)
        .collect::<Result<_, _>>()
        .map_err(doing("describe memory to the device"))?;
    front_end.set_mem_table(&regions).map_err(doing("share memory with the device"))?;
    let (receive, transmit) = (Events::new()?, Events::new()?);
    start_ring(&mut front_end, 0, memory, map.receive_ring, RECEIVE_RING_SIZE, &receive)?;
    start_ring(&mut front_end, 1, memory, map.transmit_ring, TRANSMIT_RING_SIZE, &transmit)?;
    Ok(Attachment { cid, receive, transmit, control: watched, _front_end: front_end })
}

/// Agrees on features and reads the CID.
fn negotiate(front_end: &mut Frontend) -> io::Result<GuestCid> {
    front_end.set_owner().map_err(doing("claim the device"))?;
    let offered = front_end.get_features().map_err(doing("ask for features"))?;
    let wanted = 1 << VIRTIO_F_VERSION_1
        | 1 << VIRTIO_RING_F_EVENT_IDX
        | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    if offered & wanted != wanted {
        let text = format!("device offers features {offered:#x}, {wanted:#x} are needed");
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let offered = front_end.get_protocol_features().map_err(doing("ask for protocol features"))?;
    let wanted = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::REPLY_ACK;
    if !offered.contains(wanted) {
        let text = format!("device offers protocol features {offered:?}, {wanted:?} are needed");
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    front_end.set_protocol_features(wanted).map_err(doing("agree on protocol features"))?;
    // From here on every message is answered, so that a refusal is known where it happens.
    front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    let (_, config) = front_end
        .get_config(0, 8, VhostUserConfigFlags::empty(), &[0; 8])
        .map_err(doing("read the device's configuration"))?;
    let cid: [u8; 8] = config.as_slice().try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    let wanted = 1 << VIRTIO_F_VERSION_1
        | 1 << VIRTIO_RING_F_EVENT_IDX
        | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    front_end.set_features(wanted).map_err(doing("agree on features"))?;
    Ok(GuestCid(u64::from_le_bytes(cid)))
}

fn start_ring(
    front_end: &mut Frontend,
    index: usize,
    memory: &GuestMemoryMmap,
    layout: Layout,
    size: u16,
    events: &Events,
) -> io::Result<()> {
    let host = |address| {
        let pointer = memory.get_host_address(address).map_err(io::Error::other)?;
        io::Result::Ok(pointer as u64)
    };
    let config = VringConfigData {
        queue_max_size: size,
        queue_size: size,
        flags: 0,
        desc_table_addr: host(layout.descriptors)?,
        used_ring_addr: host(layout.used)?,
        avail_ring_addr: host(layout.available)?,
        log_addr: None,
    };
    front_end.set_vring_num(index, size).map_err(doing("size a ring"))?;
    front_end.set_vring_base(index, 0).map_err(doing("set a ring's base"))?;
    front_end.set_vring_addr(index, &config).map_err(doing("place a ring"))?;
    front_end.set_vring_call(index, &events.call).map_err(doing("hand over a ring's call"))?;
    front_end.set_vring_kick(index, &events.kick).map_err(doing("hand over a ring's kick"))?;
    front_end.set_vring_enable(index, true).map_err(doing("enable a ring"))
}

fn doing<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}
