//! The exact options that attach a VM's device, per VMM.

use crate::cli::Vmm;

/// The device's id in QEMU, and its connection's: what migrations unplug and plug.
pub const DEVICE: &str = "vamos0";
pub const CHARDEV: &str = "vamos";

/// Options for a QEMU that awaits a VM from another host: its memory, and no device yet.
pub fn incoming_args(memory: &str) -> Vec<String> {
    vec![
        "-object".to_owned(),
        format!("memory-backend-memfd,id=vamos-memory,size={memory},share=on"),
        "-machine".to_owned(),
        "memory-backend=vamos-memory".to_owned(),
        "-incoming".to_owned(),
        "defer".to_owned(),
    ]
}

/// Options for a VMM that connects to the vhost-user socket at `socket`.
///
/// The guest's memory must be shareable, since the cell maps it: QEMU gets a memfd back-end of
/// `memory` bytes (which must equal its `-m`), UML always has one.
pub fn attach_args(vmm: Vmm, socket: &str, memory: &str) -> Vec<String> {
    match vmm {
        Vmm::Qemu => vec![
            "-object".to_owned(),
            format!("memory-backend-memfd,id=vamos-memory,size={memory},share=on"),
            "-machine".to_owned(),
            "memory-backend=vamos-memory".to_owned(),
            "-chardev".to_owned(),
            format!("socket,id={CHARDEV},path={}", escape_comma(socket)),
            "-device".to_owned(),
            format!("vhost-user-vsock-pci,id={DEVICE},chardev={CHARDEV}"),
        ],
        // 19 is virtio's device id of a socket device.
        Vmm::Uml => vec![format!("virtio_uml.device={socket}:19")],
    }
}

/// In QEMU's option syntax a comma within a value is written twice.
fn escape_comma(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_shares_its_memory_and_finds_the_socket() {
        let args = attach_args(Vmm::Qemu, "/run/a,b/vhost.sock", "1G").join(" ");
        assert!(args.contains("size=1G,share=on"), "{args}");
        assert!(args.contains("path=/run/a,,b/vhost.sock"), "{args}");
        assert!(args.ends_with("-device vhost-user-vsock-pci,id=vamos0,chardev=vamos"), "{args}");
    }

    #[test]
    fn uml_names_the_socket_and_the_device() {
        assert_eq!(attach_args(Vmm::Uml, "/s", "1G"), ["virtio_uml.device=/s:19"]);
    }
}
