//! What a cell is from outside: the kernel's own account of a running one.

use std::collections::HashMap;
use std::fs;

use crate::support::Host;

fn status(pid: u32) -> HashMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_string(), value.trim().to_string()));
    text.lines().filter_map(field).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_every_wall_stands() {
    let host = Host::with_vms(&["a", "b"]).await;
    let (a, b) = (host.vm("a").await, host.vm("b").await);
    assert!(!a.status.layers.is_empty());
    for layer in &a.status.layers {
        assert!(layer.applied, "{layer:?}");
    }
    let (pid, of_a, of_b) = (a.status.cell_pid, status(a.status.cell_pid), status(b.status.cell_pid));
    let uid = a.row.uid.to_string();
    assert_eq!(of_a["Uid"].split_whitespace().collect::<Vec<_>>(), [uid.as_str(); 4]);
    assert_eq!(of_a["Gid"].split_whitespace().collect::<Vec<_>>(), [uid.as_str(); 4]);
    assert_ne!(of_a["Uid"], of_b["Uid"], "each cell is its own user");
    assert_eq!(of_a["Groups"], "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(of_a[set], "0000000000000000", "{set}");
    }
    assert_eq!((of_a["NoNewPrivs"].as_str(), of_a["Seccomp"].as_str()), ("1", "2"));
    assert_eq!(of_a["NSpid"].split_whitespace().next_back(), Some("1"));
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(of(pid), of(std::process::id()), "{kind} is shared with vamosd");
        assert_ne!(of(pid), of(b.status.cell_pid), "{kind} is shared with another cell");
    }
    let root = fs::read_dir(format!("/proc/{pid}/root")).unwrap();
    let mut seen: Vec<_> = root.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    seen.sort();
    assert_eq!(seen, ["dev", "volume"]);
    let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    assert_eq!(devices.lines().skip(2).filter(|line| !line.trim_start().starts_with("lo:")).count(), 0);
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.contains("vamos-"), "{groups}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_a_cell_holds_no_descriptor_it_was_not_given() {
    let host = Host::with_vms(&["a"]).await;
    let _keep_open = fs::File::open("/etc/passwd").unwrap();
    let pid = host.vm("a").await.status.cell_pid;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap().display().to_string();
        let expected = ["socket:", "pipe:", "anon_inode:", "/dev/null", "/volume/", "/dev/urandom"];
        assert!(expected.iter().any(|start| target.starts_with(start)), "{target}");
    }
    host.stop().await;
}
