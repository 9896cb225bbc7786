//! `vamosctl service ...`

use serde_json::{Value, json};
use tonic::transport::Channel;
use vamos_proto::control::services_client::ServicesClient;
use vamos_proto::control::{ListServicesRequest, RegisterServiceRequest, RemoveServiceRequest};

use crate::cli::Service;
use crate::failure::Failure;
use crate::output::{self, print};
use crate::table::table;

/// Runs one verb.
pub async fn run(channel: Channel, verb: Service, json: bool) -> Result<(), Failure> {
    let mut services = ServicesClient::new(channel);
    match verb {
        Service::Register { name, kind } => {
            let service = services.register(RegisterServiceRequest { name, kind }).await?.into_inner();
            let text = format!("{} is a service of kind {}\n", service.name, service.kind);
            print(json, &output::service(&service), &text);
        }
        Service::List => {
            let listed = services.list(ListServicesRequest {}).await?.into_inner().services;
            let origin = |declared: bool| if declared { "vamos.toml" } else { "registered" }.to_owned();
            let rows: Vec<_> =
                listed.iter().map(|s| vec![s.name.clone(), s.kind.clone(), origin(s.declared)]).collect();
            let text = table(&["name", "kind", "origin"], &rows);
            print(json, &Value::Array(listed.iter().map(output::service).collect()), &text);
        }
        Service::Remove { name } => {
            services.remove(RemoveServiceRequest { name: name.clone() }).await?;
            print(json, &json!({"removed": name}), &format!("{name} is gone\n"));
        }
    }
    Ok(())
}
