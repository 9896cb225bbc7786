//! `Migrations`: what vamosctl asks of either side.

use std::pin::Pin;

use futures::Stream;
use futures::stream::unfold;
use tonic::{Request, Response, Status, async_trait};
use vamos_proto::control::migrations_server::Migrations;
use vamos_proto::control::{
    ArriveResponse, Chunk, Departure, DropResponse, FlushResponse, ForgetResponse, ImportRequest,
    ImportResponse, LeaveRequest, MigrationRequest, StayResponse, Vm, Volume,
};
use vamos_proto::id::{GuestCid, VmId, VsockPort};

use super::super::status::{self, invalid};
use super::{Api, binding, service_name, vm, vm_name, volume_of};
use crate::config::check_door;
use crate::limits::{BINDINGS_PER_VM_MAX, MIGRATION_PEER_BYTES_MAX};
use crate::migration::{Arrived, Departing, Piece, Pieces};
use crate::names::ServiceKind;
use crate::registry::{BindingRow, Custody, SessionSecret, Token, VmRow};

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

#[async_trait]
impl Migrations for Api {
    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<Departure>, Status> {
        let LeaveRequest { name, to } = request.into_inner();
        let departing = self.platform.leave(&vm_name(name)?, peer(to)?).await.map_err(status::of)?;
        Ok(Response::new(departure(departing)))
    }

    type ExportStream = Chunks;

    async fn export(&self, request: Request<MigrationRequest>) -> Result<Response<Chunks>, Status> {
        let (name, token) = named(request.into_inner())?;
        Ok(chunks(self.platform.export(&name, token).await.map_err(status::of)?))
    }

    type FreezeStream = Chunks;

    async fn freeze(&self, request: Request<MigrationRequest>) -> Result<Response<Chunks>, Status> {
        let (name, token) = named(request.into_inner())?;
        Ok(chunks(self.platform.freeze(&name, token).await.map_err(status::of)?))
    }

    async fn stay(&self, request: Request<MigrationRequest>) -> Result<Response<StayResponse>, Status> {
        let (name, token) = named(request.into_inner())?;
        self.platform.stay(&name, token).await.map_err(status::of)?;
        Ok(Response::new(StayResponse {}))
    }

    async fn forget(&self, request: Request<MigrationRequest>) -> Result<Response<ForgetResponse>, Status> {
        let (name, token) = named(request.into_inner())?;
        self.platform.forget(&name, token).await.map_err(status::of)?;
        Ok(Response::new(ForgetResponse {}))
    }

    async fn arrive(&self, request: Request<Departure>) -> Result<Response<ArriveResponse>, Status> {
        let departure = request.into_inner();
        let from = peer(departure.from.clone())?;
        let Departing { token, vm, bindings } = described(departure)?;
        let arrived = self.platform.arrive(vm, bindings, token, from).await.map_err(status::of)?;
        Ok(Response::new(ArriveResponse { active: arrived == Arrived::Active }))
    }

    async fn import(&self, request: Request<ImportRequest>) -> Result<Response<ImportResponse>, Status> {
        let ImportRequest { name, token, chunk } = request.into_inner();
        let (name, token) = named(MigrationRequest { name, token })?;
        let Chunk { file, offset, content, length } = chunk.ok_or_else(|| invalid("a piece is missing"))?;
        let length = (length > 0 || content.is_empty()).then_some(length);
        let piece = Piece { file, offset, content, length };
        self.platform.import(&name, token, piece).await.map_err(status::of)?;
        Ok(Response::new(ImportResponse {}))
    }

    async fn flush(&self, request: Request<MigrationRequest>) -> Result<Response<FlushResponse>, Status> {
        let (name, token) = named(request.into_inner())?;
        self.platform.flush(&name, token).await.map_err(status::of)?;
        Ok(Response::new(FlushResponse {}))
    }

    async fn activate(&self, request: Request<MigrationRequest>) -> Result<Response<Vm>, Status> {
        let (name, token) = named(request.into_inner())?;
        Ok(Response::new(vm(self.platform.activate(&name, token).await.map_err(status::of)?)))
    }

    async fn drop(&self, request: Request<MigrationRequest>) -> Result<Response<DropResponse>, Status> {
        let (name, token) = named(request.into_inner())?;
        let arrived = self.platform.drop_arrival(&name, token).await.map_err(status::of)?;
        Ok(Response::new(DropResponse { active: arrived == Arrived::Active }))
    }
}

fn named(request: MigrationRequest) -> Result<(VmId, Token), Status> {
    Ok((vm_name(request.name)?, token(request.token)?))
}

fn token(token: Vec<u8>) -> Result<Token, Status> {
    token.try_into().map(Token).map_err(|_| invalid("a migration's token has 16 bytes"))
}

fn peer(name: String) -> Result<String, Status> {
    if name.len() > MIGRATION_PEER_BYTES_MAX {
        return Err(invalid(format!(
            "the other host's name is longer than {MIGRATION_PEER_BYTES_MAX} bytes"
        )));
    }
    Ok(name)
}

/// The pieces as a stream that ends with the first error.
fn chunks(pieces: Pieces) -> Response<Chunks> {
    let stream = unfold(pieces, |mut pieces| async move {
        let chunk = pieces.recv().await?.map_err(status::of);
        let chunk = chunk.map(|Piece { file, offset, content, length }| {
            let length = length.unwrap_or_default();
            Chunk { file, offset, content, length }
        });
        Some((chunk, pieces))
    });
    Response::new(Box::pin(stream))
}

fn departure(departing: Departing) -> Departure {
    let Departing { token, vm, bindings } = departing;
    Departure {
        token: token.0.to_vec(),
        name: vm.name.to_string(),
        cid: vm.cid.0,
        generation: vm.generation,
        session_secret: vm.secret.0.to_vec(),
        bindings: bindings.into_iter().map(binding).collect(),
        frozen: matches!(vm.custody, Custody::Away { .. }),
        from: String::new(),
        volume: Some(Volume {
            class: vm.volume.class().into(),
            path: vm.volume.path().map(|path| path.display().to_string()).unwrap_or_default(),
        }),
    }
}

/// A VM as another host has described it.
fn described(departure: Departure) -> Result<Departing, Status> {
    let Departure { name, cid, generation, session_secret, bindings, volume: departure_volume, .. } =
        departure;
    let (name, token) = (vm_name(name)?, token(departure.token)?);
    let secret = session_secret.try_into().map_err(|_| invalid("a session secret has 16 bytes"))?;
    if bindings.len() > BINDINGS_PER_VM_MAX {
        return Err(invalid(format!("{} bindings, {BINDINGS_PER_VM_MAX} are possible", bindings.len())));
    }
    let bindings = bindings.into_iter().map(|binding| {
        let door = binding.door.into_iter().collect();
        check_door(&door).map_err(invalid)?;
        Ok(BindingRow {
            vm: name.clone(),
            service: service_name(binding.service)?,
            kind: ServiceKind::new(&binding.kind).map_err(invalid)?,
            port: VsockPort(binding.port),
            door,
            policy: binding.policy.unwrap_or_default(),
            quota: binding.quota.unwrap_or_default(),
            declared: false,
        })
    });
    let bindings = bindings.collect::<Result<_, Status>>()?;
    let vm = VmRow {
        name,
        cid: GuestCid(cid),
        generation,
        secret: SessionSecret(secret),
        // Given here.
        uid: 0,
        declared: false,
        custody: Custody::Here(None),
        volume: volume_of(departure_volume)?,
    };
    Ok(Departing { token, vm, bindings })
}
