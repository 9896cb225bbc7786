//! vhost-user messages: the start of a VMM's session, each request on its own, and bad ones.
//!
//! Numbers are those of QEMU's `docs/interop/vhost-user.rst`.

/// A message: request, body, descriptors.
type Message = (u32, Vec<u8>, u8);

/// Version 1, and an acknowledgement is asked for.
const FLAGS: u32 = 0x1 | 0x8;

/// Sequences of messages by name.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let session: Vec<Message> = requests().into_iter().map(|(_, message)| message).collect();
    let mut seeds = vec![("session".to_owned(), wire(&session))];
    seeds.extend(requests().into_iter().map(|(name, message)| (name.to_owned(), wire(&[message]))));
    for (name, message) in refused() {
        seeds.push((name.to_owned(), wire(&[message, (1, Vec::new(), 0)])));
    }
    let reply =
        [[0].as_slice(), &1u32.to_ne_bytes(), &0x5u32.to_ne_bytes(), &8u32.to_ne_bytes(), &[0; 8]].concat();
    seeds.push(("reply_nobody_asked_for".to_owned(), reply));
    let long = [[0].as_slice(), &1u32.to_ne_bytes(), &0x1u32.to_ne_bytes(), &u32::MAX.to_ne_bytes()].concat();
    seeds.push(("body_of_4_gib".to_owned(), long));
    let version = [[0].as_slice(), &1u32.to_ne_bytes(), &0x2u32.to_ne_bytes(), &0u32.to_ne_bytes()].concat();
    seeds.push(("version_2".to_owned(), version));
    seeds
}

fn wire(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (request, body, fds) in messages {
        bytes.push(*fds);
        for word in [*request, FLAGS, body.len() as u32] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(body);
    }
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// A memory table that announces `count` regions and holds these: guest address, size, offset.
fn table(count: u32, regions: &[(u64, u64, u64)]) -> Vec<u8> {
    let regions = regions.iter().flat_map(|(guest, size, offset)| {
        longs(&[*guest, *size, guest.wrapping_add(0x7f00_0000_0000), *offset])
    });
    words(&[count, 0]).into_iter().chain(regions).collect()
}

/// Every request of a vsock device, in the order a VMM sends them.
fn requests() -> Vec<(&'static str, Message)> {
    let (mib, gib) = (1u64 << 20, 1u64 << 30);
    vec![
        ("get_features", (1, Vec::new(), 0)),
        ("get_protocol_features", (15, Vec::new(), 0)),
        ("set_protocol_features", (16, longs(&[1 | 1 << 3 | 1 << 5 | 1 << 9]), 0)),
        ("get_queue_num", (17, Vec::new(), 0)),
        ("set_owner", (3, Vec::new(), 0)),
        ("set_backend_req_fd", (21, Vec::new(), 1)),
        ("get_config", (24, [words(&[0, 8, 0]), vec![0; 8]].concat(), 0)),
        ("set_features", (2, longs(&[1 << 30 | 1 << 32 | 1 << 29]), 0)),
        ("set_mem_table", (5, table(2, &[(0, 640 << 10, 0), (mib, gib, mib)]), 2)),
        ("set_mem_table_of_uml", (5, table(1, &[(0, 64 * mib, 0), (0, 0, 0)]), 1)),
        ("set_vring_num", (8, words(&[0, 128]), 0)),
        ("set_vring_base", (10, words(&[0, 0]), 0)),
        ("set_vring_addr", (9, [words(&[1, 0]), longs(&[0x1000, 0x2000, 0x3000, 0])].concat(), 0)),
        ("set_vring_kick", (12, longs(&[1]), 1)),
        ("set_vring_call", (13, longs(&[1]), 1)),
        ("set_vring_call_polled", (13, longs(&[1 | 1 << 8]), 0)),
        ("set_vring_err", (14, longs(&[0]), 1)),
        ("set_vring_enable", (18, words(&[0, 1]), 0)),
        ("set_status", (39, longs(&[0xf]), 0)),
        ("get_status", (40, Vec::new(), 0)),
        ("set_config", (25, [words(&[0, 4, 0]), vec![1; 4]].concat(), 0)),
        ("get_vring_base", (11, words(&[0, 0]), 0)),
        ("reset_device", (34, Vec::new(), 0)),
    ]
}

/// Requests that must not be passed on.
fn refused() -> Vec<(&'static str, Message)> {
    vec![
        ("vring_num_0", (8, words(&[0, 0]), 0)),
        ("vring_num_3", (8, words(&[0, 3]), 0)),
        ("vring_num_65536", (8, words(&[0, 65_536]), 0)),
        ("vring_of_another_device", (8, words(&[900, 128]), 0)),
        ("regions_overlap", (5, table(2, &[(0, 1 << 21, 0), (1 << 20, 1 << 20, 0)]), 2)),
        ("region_wraps", (5, table(1, &[(u64::MAX - 10, 100, 0)]), 1)),
        ("region_of_nothing", (5, table(1, &[(0, 0, 0)]), 1)),
        ("regions_509", (5, table(509, &[(0, 4096, 0)]), 32)),
        ("regions_without_files", (5, table(1, &[(0, 4096, 0)]), 0)),
        ("kick_with_32_files", (12, longs(&[0]), 32)),
        ("config_beyond_its_end", (24, words(&[250, 100, 0]), 0)),
        ("config_wraps", (24, words(&[u32::MAX, u32::MAX, 0]), 0)),
        ("request_of_another_device", (22, longs(&[0]), 0)),
        ("features_not_offered", (16, longs(&[u64::MAX]), 0)),
    ]
}
