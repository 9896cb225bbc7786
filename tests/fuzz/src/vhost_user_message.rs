//! `vhost_user_message`: what vamosd's keeper, and the device behind it, make of the messages a VMM sends.
//!
//! An input is a sequence of messages as they arrive on the socket, each preceded by a byte that says
//! how many descriptors came with it. The device gets them as they are, on a socket with real
//! descriptors: it does not rely on the keeper. What must hold of the keeper: a message is passed on, refused or ends the
//! connection; what is passed on is a part of what came, means the same when it is read again, and
//! names only queues and memory that can exist.

use vamos_host::keeper::message::{HEADER_BYTES, Header, Region, Request, parse};
use vamos_host::limits::{MEMORY_REGIONS_MAX, QUEUE_SIZE_MAX, QUEUES_MAX, VHOST_USER_BODY_BYTES_MAX};

/// Reads `input` as a sequence of messages.
pub fn run(input: &[u8]) {
    keeper(input);
    device(input);
}

/// The device's entry wants a length before each piece: a whole message is a piece.
fn device(mut input: &[u8]) {
    let mut pieces = Vec::new();
    while let Some((fds, rest)) = input.split_first() {
        let body = rest.first_chunk::<HEADER_BYTES>().map_or(0, |wire| Header::decode(wire).size as usize);
        let length = HEADER_BYTES.saturating_add(body).min(rest.len()).min(usize::from(u16::MAX));
        let (piece, rest) = rest.split_at(length);
        pieces.push(*fds);
        pieces.extend_from_slice(&(length as u16).to_le_bytes());
        pieces.extend_from_slice(piece);
        input = rest;
    }
    vamos_device::fuzz::control(&pieces);
}

fn keeper(mut input: &[u8]) {
    while let Some((fds, rest)) = input.split_first()
        && let Some((wire, rest)) = rest.split_first_chunk::<HEADER_BYTES>()
    {
        let header = Header::decode(wire);
        assert_eq!(&header.encode(), wire, "every header survives being written");
        let Ok(length) = header.body_length() else { return };
        assert!(length <= VHOST_USER_BODY_BYTES_MAX);
        let Some((body, rest)) = rest.split_at_checked(length) else { return };
        let Ok(verdict) = parse(header, body, usize::from(*fds)) else { return };
        if let Ok(parsed) = verdict {
            assert!(body.starts_with(&parsed.body), "what is passed on is what came, or its beginning");
            let passed = Header { size: parsed.body.len() as u32, ..header };
            assert_eq!(
                parse(passed, &parsed.body, usize::from(*fds)),
                Ok(Ok(parsed.clone())),
                "and means the same"
            );
            request(&parsed.request, *fds);
        }
        input = rest;
    }
}

/// Nothing is passed on that the device must not see.
fn request(request: &Request, fds: u8) {
    match request {
        Request::SetVringNum { queue, size } => {
            assert!(*queue < QUEUES_MAX && size.is_power_of_two() && *size <= QUEUE_SIZE_MAX);
        }
        Request::SetVringAddr { queue }
        | Request::SetVringBase { queue }
        | Request::GetVringBase { queue }
        | Request::SetVringEnable { queue, .. } => assert!(*queue < QUEUES_MAX && fds == 0),
        Request::SetVringKick { queue }
        | Request::SetVringCall { queue }
        | Request::SetVringErr { queue } => {
            assert!(*queue < QUEUES_MAX && fds <= 1);
        }
        Request::SetMemTable(regions) => memory(regions, fds),
        _ => assert!(fds <= 1),
    }
}

/// Regions have a descriptor each, a size, an end, and no address in common.
fn memory(regions: &[Region], fds: u8) {
    assert!(regions.len() == usize::from(fds) && regions.len() <= MEMORY_REGIONS_MAX);
    let end = |region: &Region| region.guest.checked_add(region.size).expect("a region's end is an address");
    for (at, region) in regions.iter().enumerate() {
        assert!(region.size > 0 && region.offset.checked_add(region.size).is_some());
        for other in &regions[..at] {
            assert!(
                end(region) <= other.guest || end(other) <= region.guest,
                "{region:?} and {other:?} overlap"
            );
        }
    }
}
