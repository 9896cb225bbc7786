//! vhost-user, as the back-end: feature negotiation, guest memory, rings. What the `vhost` crate
//! has parsed arrives here as calls.
//!
//! `vhost-user-backend`'s own handler is not used: it runs every ring on a thread of its own, so
//! that each request would cross threads twice on its way to a service and back (40-60 us each on
//! a VM inside a VM), and it maps memory while its workers use the old table. Here the control
//! socket, the rings and the services share one thread: a message is handled between two passes,
//! so no request is ever in mid-flight when memory or a ring changes.

use std::fs::File;
use std::os::fd::OwnedFd;

use vamos_proto::id::GuestCid;
use vamos_vsock::protocol::{CONFIG_BYTES, QUEUES};
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Backend, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::memory::{GuestTable, MemoryError};
use crate::ring::{Ring, RingError};
use crate::transport::Transport;

/// Feature bits offered to the driver, and bit 30, which is vhost-user's own.
pub(crate) const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// What of vhost-user is offered. BACKEND_REQ is never used, but UML needs it to set up interrupts;
/// CONFIG is how QEMU and UML learn the CID.
pub(crate) fn protocol_features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::BACKEND_REQ
}

/// The device as the front-end sees it.
pub(crate) struct Control {
    cid: GuestCid,
    pub(crate) transport: Transport,
    owned: bool,
    acked_features: u64,
    /// Kept open because UML takes its closing for the end of the device.
    backend_requests: Option<Backend>,
}

impl Control {
    pub(crate) fn new(cid: GuestCid, transport: Transport) -> Self {
        Self { cid, transport, owned: false, acked_features: 0, backend_requests: None }
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        self.transport.rings.get_mut(index as usize).ok_or(Error::InvalidParam)
    }

    fn reset(&mut self) {
        for ring in &mut self.transport.rings {
            ring.reset();
        }
        self.transport.lose_guest();
    }
}

/// As an answer to the front-end, with the cause.
fn refused(error: RingError) -> Error {
    Error::ReqHandlerError(std::io::Error::new(std::io::ErrorKind::InvalidInput, error))
}

fn refused_memory(error: MemoryError) -> Error {
    Error::ReqHandlerError(std::io::Error::new(std::io::ErrorKind::InvalidInput, error))
}

fn unsupported<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered"))
}

impl VhostUserBackendReqHandlerMut for Control {
    fn set_owner(&mut self) -> Result<()> {
        if self.owned {
            return Err(Error::InvalidOperation("already owned"));
        }
        self.owned = true;
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.owned = false;
        self.acked_features = 0;
        self.reset();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !FEATURES != 0 {
            return Err(Error::InvalidParam);
        }
        self.acked_features = features;
        let event_idx = features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let protocol_features = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0;
        for ring in &mut self.transport.rings {
            ring.set_event_idx(event_idx);
            if !protocol_features {
                ring.set_enabled(true);
            }
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let table = GuestTable::map(regions, files).map_err(refused_memory)?;
        self.transport.table = table;
        // A running ring has to be where it was, in the new memory too.
        let Transport { table, rings, .. } = &mut self.transport;
        for ring in rings.iter_mut().filter(|ring| ring.is_started()) {
            if let Err(error) = ring.locate(table) {
                ring.break_down();
                tracing::warn!(cid = self.cid.0, %error, "a running ring is not in the new memory table");
            }
        }
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, entries: u32) -> Result<()> {
        self.ring(index)?.set_size(entries).map_err(refused)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let Transport { table, rings, .. } = &mut self.transport;
        let ring = rings.get_mut(index as usize).ok_or(Error::InvalidParam)?;
        ring.set_addresses([descriptors, available, used], table).map_err(refused)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        let anew = self.ring(index)?.set_base(base).map_err(refused)?;
        if anew {
            tracing::info!(cid = self.cid.0, "the driver has begun anew: every stream ends");
            self.transport.lose_guest();
        }
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let base = self.ring(index)?.stop();
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> Result<()> {
        let Transport { table, rings, .. } = &mut self.transport;
        let ring = rings.get_mut(usize::from(index)).ok_or(Error::InvalidParam)?;
        ring.start(kick.map(OwnedFd::from), table).map_err(refused)
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Result<()> {
        self.ring(index.into())?.set_call(call);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, err: Option<File>) -> Result<()> {
        self.ring(index.into())?.set_err(err);
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(protocol_features())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        if features & !protocol_features().bits() != 0 {
            return Err(Error::InvalidParam);
        }
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(QUEUES as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.ring(index)?.set_enabled(enable);
        Ok(())
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let config: [u8; CONFIG_BYTES] = self.cid.0.to_le_bytes();
        let end = offset.checked_add(size).ok_or(Error::InvalidParam)?;
        config.get(offset as usize..end as usize).map(<[u8]>::to_vec).ok_or(Error::InvalidParam)
    }

    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("a vsock device's configuration is read-only"))
    }

    fn set_backend_req_fd(&mut self, backend: Backend) {
        self.backend_requests = Some(backend);
    }

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> Result<()> {
        unsupported()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        unsupported()
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        unsupported()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        unsupported()
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        unsupported()
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        unsupported()
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        unsupported()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        unsupported()
    }

    fn check_device_state(&mut self) -> Result<()> {
        unsupported()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        unsupported()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        unsupported()
    }
}
