//! Guest memory with rings in it, and plays of packets.

use vamos_device::fuzz::{MEMORY_BYTES, RECEIVE_RING, TRANSMIT_RING};
use vamos_proto::id::{GuestCid, VsockPort};
use vamos_vsock::protocol::{HEADER_BYTES, TYPE_STREAM};
use vamos_vsock::{Header, Operation};

/// A descriptor: guest address, length, flags, next (virtio 1.3, 2.7.5).
type Descriptor = (u64, u32, u16, u16);

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Where headers and payload of the seeds lie.
const DATA: u64 = 0x4000;

/// Memories (first byte 0) and plays (first byte 1), by name.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (name, descriptors, heads) in rings() {
        seeds.push((name.to_owned(), [vec![0], memory(&descriptors, &heads)].concat()));
    }
    for (name, script) in plays() {
        seeds.push((name.to_owned(), [vec![1], script].concat()));
    }
    seeds
}

fn header(op: Operation, port: u32, len: u32) -> Header {
    Header {
        src_cid: GuestCid::FIRST,
        dst_cid: GuestCid::HOST,
        src_port: VsockPort(port),
        dst_port: VsockPort(1024),
        len,
        socket_type: TYPE_STREAM,
        op: op as u16,
        flags: 3,
        buf_alloc: 1 << 16,
        fwd_cnt: 0,
    }
}

/// Writes for a transmit ring with these descriptors and available heads; buffers wait on the other ring.
fn memory(descriptors: &[Descriptor], heads: &[u16]) -> Vec<u8> {
    let mut writes = Vec::new();
    let mut put = |at: u64, bytes: &[u8]| {
        writes.extend_from_slice(&(at as u16).to_le_bytes());
        writes.push(bytes.len() as u8);
        writes.extend_from_slice(bytes);
    };
    let packets = [
        (Operation::Request, 0),
        (Operation::ReadWrite, 64),
        (Operation::CreditRequest, 0),
        (Operation::Shutdown, 0),
    ];
    for ((op, len), at) in packets.into_iter().zip((DATA..).step_by(0x100)) {
        put(at, &header(op, 7, len).encode());
    }
    put(DATA + 0x100 + HEADER_BYTES as u64, &[0x41; 64]);
    // An indirect table of two descriptors: the RW packet's header and payload.
    put(0x6000, &descriptor((DATA + 0x100, HEADER_BYTES as u32, NEXT, 1)));
    put(0x6010, &descriptor((DATA + 0x100 + HEADER_BYTES as u64, 64, 0, 0)));
    let buffers: Vec<Descriptor> = (0..4).map(|slot| (0x8000 + slot * 0x1000, 4096, WRITE, 0)).collect();
    let rings =
        [(RECEIVE_RING, buffers.as_slice(), [0, 1, 2, 3].as_slice()), (TRANSMIT_RING, descriptors, heads)];
    for (ring, descriptors, heads) in rings {
        let table: Vec<u8> = descriptors.iter().flat_map(|entry| descriptor(*entry)).collect();
        put(ring[0], &table);
        // Flags, index, heads (virtio 1.3, 2.7.6).
        let entries: Vec<u8> = heads.iter().take(16).flat_map(|head| head.to_le_bytes()).collect();
        put(ring[1], &[&[0, 0][..], &(heads.len() as u16).to_le_bytes(), &entries].concat());
    }
    writes
}

fn descriptor((address, length, flags, next): Descriptor) -> Vec<u8> {
    [&address.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
}

/// Transmit rings: name, descriptors, available heads.
fn rings() -> Vec<(&'static str, Vec<Descriptor>, Vec<u16>)> {
    let (size, payload) = (HEADER_BYTES as u32, DATA + 0x100 + HEADER_BYTES as u64);
    let request = (DATA, size, 0, 0);
    let split = [(DATA + 0x100, size, NEXT, 2), (payload, 64, 0, 0)];
    vec![
        ("ring_request", vec![request], vec![0]),
        (
            "ring_request_and_data",
            vec![request, split[0], split[1], (DATA + 0x200, size, 0, 0), (DATA + 0x300, size, 0, 0)],
            vec![0, 1, 3, 4],
        ),
        ("ring_data_in_one", vec![request, (DATA + 0x100, size + 64, 0, 0)], vec![0, 1]),
        ("ring_indirect", vec![request, (0x6000, 32, INDIRECT, 0)], vec![0, 1]),
        ("ring_cycle", vec![(DATA, size, NEXT, 1), (DATA, size, NEXT, 0)], vec![0]),
        ("ring_cycle_of_one", vec![(DATA, size, NEXT, 0)], vec![0]),
        (
            "ring_indirect_in_indirect",
            vec![(0x6000, 32, INDIRECT | NEXT, 1), (0x6000, 32, INDIRECT, 0)],
            vec![0],
        ),
        ("ring_indirect_of_odd_size", vec![(0x6000, 33, INDIRECT, 0)], vec![0]),
        ("ring_indirect_of_4_gib", vec![(0x6000, u32::MAX, INDIRECT, 0)], vec![0]),
        ("ring_indirect_of_nothing", vec![(0x6000, 0, INDIRECT, 0)], vec![0]),
        ("ring_descriptors_of_nothing", vec![(DATA, 0, NEXT, 1), (DATA, 0, 0, 0)], vec![0]),
        ("ring_header_cut_off", vec![(DATA, 20, 0, 0)], vec![0]),
        ("ring_beyond_memory", vec![(MEMORY_BYTES as u64 - 8, size, 0, 0)], vec![0]),
        ("ring_around_the_end", vec![(u64::MAX - 3, size, 0, 0)], vec![0]),
        ("ring_write_only", vec![(DATA, size, WRITE, 0)], vec![0]),
        ("ring_head_out_of_range", vec![request], vec![99]),
        ("ring_same_head_twice", vec![request], vec![0, 0, 0]),
        ("ring_index_jumps", vec![request], vec![0; 4000]),
        ("ring_into_its_own_rings", vec![(TRANSMIT_RING[0], size, 0, 0)], vec![0]),
    ]
}

/// A step of four bytes.
fn step(what: u8, which: u8, amount: u16) -> Vec<u8> {
    [&[what, which][..], &amount.to_le_bytes()].concat()
}

/// A packet step: the peer's port, operation, payload, credit.
fn packet(port: u8, op: Operation, len: u16, buf_alloc: u32, fwd_cnt: u32) -> Vec<u8> {
    let fields = [&[op as u8, 3][..], &buf_alloc.to_le_bytes(), &fwd_cnt.to_le_bytes()].concat();
    [step(0, port, len), fields].concat()
}

/// Plays by name.
fn plays() -> Vec<(&'static str, Vec<u8>)> {
    use Operation::{CreditRequest, CreditUpdate, ReadWrite, Request, Reset, Response, Shutdown};
    let open = packet(1, Request, 0, 4096, 0);
    let send = step(6, 15, 4096);
    let raw = [step(2, 0, 0), Header { socket_type: 2, ..header(Request, 3, 0) }.encode().to_vec()].concat();
    let forged =
        [step(2, 0, 0), Header { src_cid: GuestCid(99), ..header(Request, 3, 0) }.encode().to_vec()].concat();
    let flood: Vec<u8> = (0..8).flat_map(|port| packet(port, Request, 0, 100, 0)).collect();
    let play = |steps: &[Vec<u8>]| steps.concat();
    vec![
        (
            "play_open_read_close",
            play(&[
                open.clone(),
                send.clone(),
                packet(1, ReadWrite, 300, 4096, 0),
                step(3, 0, 500),
                step(5, 0, 0),
                send.clone(),
            ]),
        ),
        (
            "play_write",
            play(&[
                open.clone(),
                step(4, 0, 5000),
                send.clone(),
                packet(1, CreditUpdate, 0, 4096, 4096),
                send.clone(),
            ]),
        ),
        (
            "play_half_close",
            play(&[
                open.clone(),
                step(5, 0, 1),
                send.clone(),
                packet(1, ReadWrite, 9, 4096, 0),
                step(3, 0, 99),
                packet(1, Shutdown, 0, 4096, 0),
                step(3, 0, 9),
            ]),
        ),
        (
            "play_credit_shrinks",
            play(&[
                open.clone(),
                step(4, 0, 3000),
                send.clone(),
                packet(1, CreditUpdate, 0, 10, 0),
                step(4, 0, 99),
                send.clone(),
            ]),
        ),
        (
            "play_credit_lies",
            play(&[open.clone(), step(4, 0, 99), packet(1, CreditUpdate, 0, u32::MAX, 9_999), send.clone()]),
        ),
        (
            "play_beyond_credit",
            play(
                &[vec![open.clone()], vec![packet(1, ReadWrite, 60_000, 0, 0); 6], vec![send.clone()]]
                    .concat(),
            ),
        ),
        ("play_flood_of_requests", play(&[flood, send.clone()])),
        (
            "play_reset_in_write",
            play(&[
                open.clone(),
                step(4, 0, 9000),
                packet(1, Reset, 0, 0, 0),
                step(4, 0, 1),
                step(3, 0, 1),
                step(5, 0, 0),
                open.clone(),
            ]),
        ),
        (
            "play_unknown_connection",
            play(&[
                packet(5, Response, 0, 1, 1),
                packet(5, ReadWrite, 7, 1, 1),
                packet(5, Shutdown, 0, 1, 1),
                send.clone(),
            ]),
        ),
        (
            "play_credit_requests",
            play(
                &[vec![open.clone()], vec![packet(1, CreditRequest, 0, 1, 0); 9], vec![send.clone()]]
                    .concat(),
            ),
        ),
        ("play_refused", play(&[packet(4, Request, 0, 1, 0), step(5, 0, 0), send.clone()])),
        ("play_seqpacket_and_forged", play(&[raw, forged, send])),
    ]
}
