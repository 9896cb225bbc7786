//! The guest's memory as the front-end shared it: checked, mapped, and addressable both by guest
//! physical address (descriptors) and by the front-end's own (ring addresses).

use std::fs::File;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};

use crate::limits::GUEST_MEMORY_BYTES_MAX;

/// Mapped guest memory.
pub(crate) type Memory = GuestMemoryMmap<()>;

/// Why a memory table is refused. The table in force stays.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A region's addresses or sizes overflow, or exceed what one device maps.
    #[error("memory region at {0:#x} has impossible bounds")]
    Bounds(u64),
    /// Mapping past the end of a file is a SIGBUS waiting to happen.
    #[error("memory region at {address:#x} needs {needed} bytes of a file of {size}")]
    FileTooShort {
        /// Guest physical address of the region.
        address: u64,
        /// Bytes of file that the region reaches to.
        needed: u64,
        /// Bytes of file there are.
        size: u64,
    },
    /// The file's size could not be read.
    #[error("inspect a memory region's file")]
    Inspect(#[source] rustix::io::Errno),
    /// The kernel would not map it.
    #[error("map a memory region")]
    Map(#[source] vhost::vhost_user::Error),
    /// Regions overlap.
    #[error("assemble guest memory")]
    Assemble(#[source] vm_memory::GuestRegionCollectionError),
}

/// The memory table in force.
#[derive(Debug, Default)]
pub(crate) struct GuestTable {
    pub(crate) memory: Memory,
    /// Front-end address, guest address, bytes.
    translations: Vec<(u64, u64, u64)>,
}

impl GuestTable {
    /// Checks and maps `regions`, each from the file beside it.
    pub(crate) fn map(regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<Self, MemoryError> {
        let mut mapped = Vec::with_capacity(regions.len());
        let mut translations = Vec::with_capacity(regions.len());
        let mut total = 0u64;
        for (region, file) in regions.iter().zip(files) {
            let (address, size, user) = (region.guest_phys_addr, region.memory_size, region.user_addr);
            total = total.saturating_add(size);
            let in_bounds = size > 0
                && address.checked_add(size).is_some()
                && user.checked_add(size).is_some()
                && total <= GUEST_MEMORY_BYTES_MAX;
            if !in_bounds {
                return Err(MemoryError::Bounds(address));
            }
            check_file(&file, region)?;
            let mapping = region.mmap_region(file).map_err(MemoryError::Map)?;
            let region =
                GuestRegionMmap::new(mapping, GuestAddress(address)).ok_or(MemoryError::Bounds(address))?;
            mapped.push(region);
            translations.push((user, address, size));
        }
        mapped.sort_by_key(|region| vm_memory::GuestMemoryRegion::start_addr(region).0);
        let memory = Memory::from_regions(mapped).map_err(MemoryError::Assemble)?;
        Ok(Self { memory, translations })
    }

    /// The guest address of something the front-end has at `user` in its own address space.
    pub(crate) fn guest_address(&self, user: u64) -> Option<GuestAddress> {
        self.translations.iter().find_map(|&(start, guest, size)| {
            let offset = user.checked_sub(start)?;
            (offset < size).then(|| GuestAddress(guest + offset))
        })
    }

    /// Whether there is any memory.
    pub(crate) fn is_empty(&self) -> bool {
        self.memory.num_regions() == 0
    }
}

fn check_file(file: &File, region: &VhostUserMemoryRegion) -> Result<(), MemoryError> {
    let (address, offset, memory_size) = (region.guest_phys_addr, region.mmap_offset, region.memory_size);
    let size = fstat(file).map_err(MemoryError::Inspect)?.st_size as u64;
    let needed = offset.checked_add(memory_size).ok_or(MemoryError::Bounds(address))?;
    if needed > size {
        return Err(MemoryError::FileTooShort { address, needed, size });
    }
    // A VMM that shrinks an unsealed file later kills this cell with SIGBUS: itself, nobody else.
    let sealed = fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    tracing::debug!(address, memory_size, sealed, "map guest memory");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    fn file(bytes: u64) -> File {
        let fd = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, bytes).unwrap();
        File::from(fd)
    }

    #[test]
    fn addresses_of_the_front_end_become_guest_addresses() {
        let regions = [
            VhostUserMemoryRegion::new(0x10_0000, 0x4000, 0x7f00_0000, 0),
            VhostUserMemoryRegion::new(0, 0x4000, 0x7e00_0000, 0x1000),
        ];
        let table = GuestTable::map(&regions, vec![file(0x4000), file(0x5000)]).unwrap();
        assert_eq!(table.guest_address(0x7f00_0010), Some(GuestAddress(0x10_0010)));
        assert_eq!(table.guest_address(0x7e00_3fff), Some(GuestAddress(0x3fff)));
        assert_eq!(table.guest_address(0x7e00_4000), None);
        assert_eq!(table.guest_address(0), None);
    }

    #[test]
    fn impossible_tables_are_refused() {
        let one = |gpa, size, user, offset| {
            GuestTable::map(&[VhostUserMemoryRegion::new(gpa, size, user, offset)], vec![file(0x2000)])
        };
        assert!(matches!(
            one(0, 0x3000, 0, 0),
            Err(MemoryError::FileTooShort { needed: 0x3000, size: 0x2000, .. })
        ));
        assert!(matches!(one(0, 0x2000, 0, 0x1000), Err(MemoryError::FileTooShort { .. })));
        assert!(matches!(one(u64::MAX - 0xfff, 0x2000, 0, 0), Err(MemoryError::Bounds(_))));
        assert!(matches!(one(0, 0x2000, u64::MAX - 0xfff, 0), Err(MemoryError::Bounds(_))));
        assert!(matches!(one(0, 0x2000, 0, u64::MAX), Err(MemoryError::Bounds(_))));
        assert!(matches!(one(0, 0, 0, 0), Err(MemoryError::Bounds(_))));
        let overlapping = [
            VhostUserMemoryRegion::new(0, 0x2000, 0, 0),
            VhostUserMemoryRegion::new(0x1000, 0x2000, 0x10_0000, 0),
        ];
        let outcome = GuestTable::map(&overlapping, vec![file(0x2000), file(0x2000)]);
        assert!(matches!(outcome, Err(MemoryError::Assemble(_))));
    }
}
