//! `vamosctl binding ...`

use serde_json::{Value, json};
use tonic::transport::Channel;
use vamos_proto::control::bindings_client::BindingsClient;
use vamos_proto::control::{self as proto, BindRequest, ListBindingsRequest, UnbindRequest};
use vamos_proto::policy::{Policy, Quota};

use crate::cli::{Bind, Binding};
use crate::failure::Failure;
use crate::output::{self, print};
use crate::table::table;

/// Runs one verb.
pub async fn run(channel: Channel, verb: Binding, json: bool) -> Result<(), Failure> {
    let mut bindings = BindingsClient::new(channel);
    match verb {
        Binding::Bind(options) => {
            let bound = bindings.bind(request(*options)).await?.into_inner();
            let text = format!(
                "{} may use {} ({}) on vsock port {}\n",
                bound.vm, bound.service, bound.kind, bound.port
            );
            print(json, &output::binding(&bound), &text);
        }
        Binding::Unbind { vm, service } => {
            bindings.unbind(UnbindRequest { vm: vm.clone(), service: service.clone() }).await?;
            let text = format!("{vm} may no longer use {service}; the data stays in its volume\n");
            print(json, &json!({"vm": vm, "unbound": service}), &text);
        }
        Binding::List { vm } => {
            let request = ListBindingsRequest { vm: vm.unwrap_or_default() };
            list(&bindings.list(request).await?.into_inner().bindings, json);
        }
    }
    Ok(())
}

fn request(options: Bind) -> BindRequest {
    let milliseconds = |time: Option<humantime::Duration>| {
        time.map_or(0, |time| time.as_millis().try_into().unwrap_or(u64::MAX).max(1))
    };
    BindRequest {
        vm: options.vm,
        service: options.service,
        door: options.door.into_iter().collect(),
        policy: Some(Policy {
            read_only: options.read_only,
            statement_timeout_ms: milliseconds(options.statement_timeout),
            idle_in_transaction_timeout_ms: milliseconds(options.idle_in_transaction_timeout),
        }),
        quota: Some(Quota {
            max_bytes: options.max_bytes,
            max_sessions: options.max_sessions,
            ops_per_second: options.ops_per_second,
            bytes_per_second: options.bytes_per_second,
        }),
    }
}

fn list(bindings: &[proto::Binding], json: bool) {
    let row = |b: &proto::Binding| {
        let mut doors: Vec<String> = b.door.iter().map(|(name, value)| format!("{name}={value}")).collect();
        doors.sort();
        vec![b.vm.clone(), b.service.clone(), b.kind.clone(), b.port.to_string(), doors.join(" ")]
    };
    let text =
        table(&["vm", "service", "kind", "port", "door"], &bindings.iter().map(row).collect::<Vec<_>>());
    print(json, &Value::Array(bindings.iter().map(output::binding).collect()), &text);
}
