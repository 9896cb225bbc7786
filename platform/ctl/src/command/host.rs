//! `vamosctl drain`, `discard`, `upgrade`, `shutdown` and `doctor`.

use serde_json::{Value, json};
use tonic::transport::Channel;
use vamos_proto::control::host_client::HostClient;
use vamos_proto::control::{
    DiscardRequest, DoctorRequest, DrainRequest, ShutdownRequest, UpgradeRequest, Verdict,
};

use crate::failure::Failure;
use crate::output::{self, print};
use crate::table::table;

/// Replaces cells after their streams have finished.
pub async fn drain(
    channel: Channel,
    vm: Option<String>,
    deadline: Option<humantime::Duration>,
    json: bool,
) -> Result<(), Failure> {
    let deadline_ms = deadline.map_or(0, |time| time.as_millis().try_into().unwrap_or(u64::MAX).max(1));
    let request = DrainRequest { name: vm.unwrap_or_default(), deadline_ms };
    let drained = HostClient::new(channel).drain(request).await?.into_inner().drained;
    print(json, &json!({"drained": drained}), &format!("drained: {}\n", drained.join(" ")));
    Ok(())
}

/// Replaces a VM's cell at once.
pub async fn discard(channel: Channel, vm: String, json: bool) -> Result<(), Failure> {
    HostClient::new(channel).discard(DiscardRequest { name: vm.clone() }).await?;
    print(json, &json!({"discarded": vm}), &format!("{vm}: host-side state discarded\n"));
    Ok(())
}

/// Has vamosd followed by its new program.
pub async fn upgrade(channel: Channel, json: bool) -> Result<(), Failure> {
    HostClient::new(channel).upgrade(UpgradeRequest {}).await?;
    print(json, &json!({"upgrade": true}), "vamosd is upgrading; its log tells when each cell is replaced\n");
    Ok(())
}

/// Ends vamosd.
pub async fn shutdown(channel: Channel, json: bool) -> Result<(), Failure> {
    HostClient::new(channel).shutdown(ShutdownRequest {}).await?;
    print(json, &json!({"shutdown": true}), "vamosd is shutting down\n");
    Ok(())
}

/// Prints what vamosd found on its host; fails if something is missing.
pub async fn doctor(channel: Channel, json: bool) -> Result<(), Failure> {
    let checks = HostClient::new(channel).doctor(DoctorRequest {}).await?.into_inner().checks;
    let rows: Vec<_> = checks
        .iter()
        .map(|c| vec![c.name.clone(), output::verdict(c).to_owned(), c.detail.clone(), c.remedy.clone()])
        .collect();
    let text = table(&["check", "verdict", "found", "what to do"], &rows);
    print(json, &Value::Array(checks.iter().map(output::check).collect()), &text);
    match checks.iter().filter(|check| check.verdict() == Verdict::Missing).count() {
        0 => Ok(()),
        missing => Err(Failure::Unhealthy(missing)),
    }
}
