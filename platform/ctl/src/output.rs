//! What the control plane's messages look like as JSON and as text. JSON fields have the names of
//! `control.proto`.

use serde_json::{Value, json};
use vamos_proto::cell::Counters;
use vamos_proto::control::{Binding, Check, Service, Verdict, Vm, VmState, VmStats};

/// Prints `json` or `text`, as asked.
pub fn print(as_json: bool, json: &Value, text: &str) {
    if as_json {
        println!("{json:#}");
    } else {
        print!("{text}");
    }
}

/// A VM as JSON.
pub fn vm(vm: &Vm) -> Value {
    let layers = vm.sandbox.iter();
    json!({
        "name": vm.name,
        "cid": vm.cid,
        "generation": vm.generation,
        "state": state(vm),
        "detail": vm.detail,
        "socket": vm.socket,
        "volume": vm.volume,
        "volume_class": vm.volume_class,
        "cell_pid": vm.cell_pid,
        "cell_uid": vm.cell_uid,
        "cell_starts": vm.cell_starts,
        "declared": vm.declared,
        "sandbox": layers
            .map(|layer| json!({"name": layer.name, "applied": layer.applied, "detail": layer.detail}))
            .collect::<Vec<_>>(),
    })
}

/// A VM's state in one word.
pub fn state(vm: &Vm) -> &'static str {
    match vm.state() {
        VmState::Unspecified => "unknown",
        VmState::Starting => "starting",
        VmState::Ready => "ready",
        VmState::Attached => "attached",
        VmState::BackingOff => "backing-off",
        VmState::Broken => "broken",
        VmState::Arriving => "arriving",
        VmState::Away => "away",
    }
}

/// A service as JSON.
pub fn service(service: &Service) -> Value {
    json!({"name": service.name, "kind": service.kind, "declared": service.declared})
}

/// A binding as JSON.
pub fn binding(binding: &Binding) -> Value {
    let policy = binding.policy.unwrap_or_default();
    let quota = binding.quota.unwrap_or_default();
    json!({
        "vm": binding.vm,
        "service": binding.service,
        "kind": binding.kind,
        "port": binding.port,
        "door": binding.door,
        "policy": {
            "read_only": policy.read_only,
            "statement_timeout_ms": policy.statement_timeout_ms,
            "idle_in_transaction_timeout_ms": policy.idle_in_transaction_timeout_ms,
        },
        "quota": {
            "max_bytes": quota.max_bytes,
            "max_sessions": quota.max_sessions,
            "ops_per_second": quota.ops_per_second,
            "bytes_per_second": quota.bytes_per_second,
        },
        "declared": binding.declared,
    })
}

/// A device's counters, by name.
pub fn counters(counters: &Counters) -> [(&'static str, u64); 12] {
    [
        ("kicks_received", counters.kicks_received),
        ("kicks_suppressed", counters.kicks_suppressed),
        ("calls_sent", counters.calls_sent),
        ("calls_suppressed", counters.calls_suppressed),
        ("packets_received", counters.packets_received),
        ("packets_sent", counters.packets_sent),
        ("bytes_received", counters.bytes_received),
        ("bytes_sent", counters.bytes_sent),
        ("streams_opened", counters.streams_opened),
        ("streams_reset", counters.streams_reset),
        ("streams_open", counters.streams_open),
        ("protocol_errors", counters.protocol_errors),
    ]
}

/// One reading of a device's counters as JSON.
pub fn stats(stats: &VmStats) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("name".to_owned(), json!(stats.name));
    object.insert("at_ms".to_owned(), json!(stats.at_ms));
    for (name, value) in counters(&stats.counters.unwrap_or_default()) {
        object.insert(name.to_owned(), json!(value));
    }
    Value::Object(object)
}

/// A check of the host as JSON.
pub fn check(check: &Check) -> Value {
    json!({
        "name": check.name,
        "verdict": verdict(check),
        "detail": check.detail,
        "remedy": check.remedy,
    })
}

/// A check's verdict in one word.
pub fn verdict(check: &Check) -> &'static str {
    match check.verdict() {
        Verdict::Unspecified => "unknown",
        Verdict::Ok => "ok",
        Verdict::Unproven => "unproven",
        Verdict::Missing => "missing",
    }
}
