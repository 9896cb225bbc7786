//! The process guest against a device that shares no code with ours: rings and vhost-user by
//! `vhost-user-backend`, packets by `virtio-vsock`. It echoes every byte within the guest's credit, so what
//! is checked is that both sides mean the same by the same bytes.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vamos_link::ProcessGuest;
use vamos_proto::id::{GuestCid, VsockPort};
use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::{QueueOwnedT, QueueT};
use virtio_vsock::packet::{PKT_HEADER_SIZE, VsockPacket};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

const CID: u64 = 42;
const ECHO: u32 = 7;
const PACKET_BYTES_MAX: u32 = 64 << 10;
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const RX: usize = 0;
const TX: usize = 1;

/// A packet to be sent, without its CIDs: operation, ports as the guest named them, payload.
struct Reply {
    op: u16,
    guest_port: u32,
    host_port: u32,
    payload: Vec<u8>,
    fwd_cnt: u32,
}

/// The device.
struct Echo {
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    event_idx: bool,
    replies: VecDeque<Reply>,
    /// Bytes taken from the guest and sent to it, wrapping; one stream carries payload.
    taken: u32,
    sent: u32,
    /// The guest's window, as it said last.
    buf_alloc: u32,
    fwd_cnt: u32,
}

impl Echo {
    fn take_packets(&mut self, vring: &VringRwLock) {
        let memory = self.memory.memory();
        loop {
            let chains: Vec<_> = vring.get_mut().get_queue_mut().iter(memory.clone()).unwrap().collect();
            if chains.is_empty() {
                return;
            }
            for mut chain in chains {
                let packet =
                    VsockPacket::from_tx_virtq_chain(&*memory, &mut chain, PACKET_BYTES_MAX).unwrap();
                assert_eq!((packet.src_cid(), packet.dst_cid(), packet.type_()), (CID, 2, 1));
                (self.buf_alloc, self.fwd_cnt) = (packet.buf_alloc(), packet.fwd_cnt());
                self.answer(packet.op(), (packet.src_port(), packet.dst_port()), &payload(&packet));
                vring.add_used(chain.head_index(), 0).unwrap();
            }
            if vring.needs_notification().unwrap() {
                vring.signal_used_queue().unwrap();
            }
        }
    }

    fn answer(&mut self, op: u16, (guest_port, host_port): (u32, u32), payload: &[u8]) {
        self.taken = self.taken.wrapping_add(payload.len() as u32);
        let fwd_cnt = self.taken;
        let mut reply = |op, payload: &[u8]| {
            self.replies.push_back(Reply { op, guest_port, host_port, payload: payload.to_vec(), fwd_cnt });
        };
        match op {
            // REQUEST: RESPONSE on the echo's port, RST elsewhere.
            1 => reply(if host_port == ECHO { 2 } else { 3 }, &[]),
            // RST, CREDIT_UPDATE
            3 | 6 => {}
            // SHUTDOWN: RST, which frees the ports.
            4 => reply(3, &[]),
            5 => payload.chunks(4096).for_each(|piece| reply(5, piece)),
            // CREDIT_REQUEST: CREDIT_UPDATE
            7 => reply(6, &[]),
            other => panic!("operation {other}"),
        }
    }

    /// Whether there is a reply, and credit for it.
    fn may_send(&self) -> bool {
        self.replies.front().is_some_and(|reply| {
            let length = reply.payload.len() as u32;
            length == 0 || self.sent.wrapping_sub(self.fwd_cnt) + length <= self.buf_alloc
        })
    }

    fn give_packets(&mut self, vring: &VringRwLock) {
        let memory = self.memory.memory();
        while self.may_send() {
            let Some(reply) = self.replies.front() else { break };
            let length = reply.payload.len() as u32;
            let Some(mut chain) = vring.get_mut().get_queue_mut().iter(memory.clone()).unwrap().next() else {
                break;
            };
            let mut packet =
                VsockPacket::from_rx_virtq_chain(&*memory, &mut chain, PACKET_BYTES_MAX).unwrap();
            packet.set_header_from_raw(&[0; PKT_HEADER_SIZE]).unwrap();
            packet
                .set_src_cid(2)
                .set_dst_cid(CID)
                .set_src_port(reply.host_port)
                .set_dst_port(reply.guest_port);
            packet.set_type(1).set_op(reply.op).set_len(reply.payload.len() as u32);
            packet.set_buf_alloc(1 << 30).set_fwd_cnt(reply.fwd_cnt);
            if !reply.payload.is_empty() {
                packet.data_slice().unwrap().copy_from(&reply.payload);
            }
            let bytes = PKT_HEADER_SIZE + reply.payload.len();
            vring.add_used(chain.head_index(), bytes as u32).unwrap();
            self.sent = self.sent.wrapping_add(length);
            self.replies.pop_front();
        }
        if vring.needs_notification().unwrap() {
            vring.signal_used_queue().unwrap();
        }
    }
}

fn payload<B: vm_memory::bitmap::BitmapSlice>(packet: &VsockPacket<'_, B>) -> Vec<u8> {
    let mut bytes = vec![0; packet.len() as usize];
    if let Some(data) = packet.data_slice() {
        data.copy_to(&mut bytes);
    }
    bytes
}

impl VhostUserBackendMut for Echo {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        VERSION_1 | EVENT_IDX | PROTOCOL_FEATURES
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::MQ
    }

    fn set_event_idx(&mut self, enabled: bool) {
        self.event_idx = enabled;
    }

    fn get_config(&self, _: u32, size: u32) -> Vec<u8> {
        CID.to_le_bytes()[..size as usize].to_vec()
    }

    fn update_memory(&mut self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.memory = memory;
        Ok(())
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(&mut self, _: u16, _: EventSet, vrings: &[VringRwLock], _: usize) -> io::Result<()> {
        assert!(self.event_idx, "the process guest negotiates EVENT_IDX");
        // A ring is kicked while the other is still being set up.
        let ready = |index: usize| vrings[index].get_ref().get_queue().ready();
        loop {
            if ready(TX) {
                vrings[TX].disable_notification().unwrap();
                self.take_packets(&vrings[TX]);
            }
            if ready(RX) {
                self.give_packets(&vrings[RX]);
            }
            // Asked of both: the guest tells of new receive buffers, too.
            let more = |index: usize| ready(index) && vrings[index].enable_notification().unwrap();
            let (more_to_take, more_room) = (more(TX), more(RX));
            if !(more_to_take || (more_room && self.may_send())) {
                return Ok(());
            }
        }
    }
}

#[tokio::test]
async fn a_device_that_shares_no_code_understands_the_process_guest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vhost.sock");
    let mut listener = Listener::new(&path, false).unwrap();
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let echo = Echo {
        memory: memory.clone(),
        event_idx: false,
        replies: VecDeque::new(),
        taken: 0,
        sent: 0,
        buf_alloc: 0,
        fwd_cnt: 0,
    };
    let mut daemon = VhostUserDaemon::new("echo".to_owned(), Arc::new(Mutex::new(echo)), memory).unwrap();
    let device = thread::spawn(move || {
        daemon.start(&mut listener).unwrap();
        // The front-end's end of the conversation is the device's, however it is put.
        let _ = daemon.wait();
    });
    let guest = ProcessGuest::attach(&path).await.unwrap();
    assert_eq!(guest.cid(), GuestCid(CID));
    let refused = guest.open(VsockPort(ECHO + 1)).await.map(drop).unwrap_err();
    assert!(
        matches!(refused.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset),
        "{refused}"
    );

    let stream = guest.open(VsockPort(ECHO)).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..8 << 20).map(|n: u32| (n ^ (n >> 8)) as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.flush().await.unwrap();
        writer
    });
    let mut received = vec![0; expected.len()];
    reader.read_exact(&mut received).await.unwrap();
    assert!(received == expected, "the echo differs");
    drop((reader, writing.await.unwrap()));
    drop(guest);
    tokio::task::spawn_blocking(move || device.join().unwrap()).await.unwrap();
}
