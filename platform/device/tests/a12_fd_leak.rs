//! Bad inputs, group A, row 12, alone in its process because it counts the process's descriptors.

mod support;

use support::raw::{message, open_fds, request, send_raw};

/// A piece for `fuzz::control`: so many descriptors, these bytes.
fn piece(fds: u8, bytes: &[u8]) -> Vec<u8> {
    let mut piece = vec![fds];
    piece.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    piece.extend_from_slice(bytes);
    piece
}

#[test]
fn a12_ten_thousand_broken_messages_leak_no_descriptor() {
    let kick = message(request::SET_VRING_KICK, &1u64.to_ne_bytes());
    let owner = message(request::SET_OWNER, &[]);
    let table = message(request::SET_MEM_TABLE, &[0; 40]);
    let inputs = [
        piece(32, &kick),
        piece(33, &kick),
        piece(40, &kick),
        piece(32, &kick[..7]),
        piece(1, &kick[..12]),
        piece(32, &owner),
        piece(32, &table),
        piece(2, &[0xff; 30]),
        [piece(8, &kick[..5]), piece(8, &kick[5..])].concat(),
        [piece(1, &kick), piece(1, &kick), piece(1, &kick)].concat(),
    ];
    for input in &inputs {
        vamos_device::fuzz::control(input);
    }
    let before = open_fds();
    for _ in 0..1_000 {
        for input in &inputs {
            vamos_device::fuzz::control(input);
        }
    }
    assert_eq!(open_fds(), before);

    // The same against a running device: it ends, with a reason, and takes everything with it.
    // The first runtime of a process opens two descriptors for signals, once.
    let mut before = 0;
    for round in 0..50 {
        if round == 1 {
            before = open_fds();
        }
        let (device, front) = support::start();
        let file = support::raw::memfd(4096);
        let fds = vec![std::os::fd::AsFd::as_fd(&file); if round % 2 == 0 { 32 } else { 40 }];
        let _ = send_raw(&front, if round % 3 == 0 { &kick } else { &owner[..6] }, &fds);
        drop((front, file));
        let _ = device.join();
    }
    assert_eq!(open_fds(), before);
}
