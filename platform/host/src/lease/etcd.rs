//! A lease as a key in etcd, which etcd removes when it is not renewed. Its epoch is in a key beside it that stays; both
//! change in one transaction. What the last holder gave back is in a third.

use std::fmt;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_stream::once;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use vamos_proto::etcd::compare::{CompareTarget, TargetUnion};
use vamos_proto::etcd::kv_client::KvClient;
use vamos_proto::etcd::lease_client::LeaseClient;
use vamos_proto::etcd::request_op::Request;
use vamos_proto::etcd::{
    Compare, DeleteRangeRequest, KeyValue, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use super::{Claim, Holder, LeaseError, Renewal, Terms};
use crate::limits::ETCD_ANSWER_MAX;

/// Where etcd is, and how it is spoken to.
#[derive(Clone, PartialEq, Eq)]
pub struct Etcd {
    /// Its members, as `http://HOST:PORT` or `https://HOST:PORT`.
    pub members: Vec<String>,
    /// Authority of their certificates, and this host's certificate and key, PEM.
    pub tls: Option<[Vec<u8>; 3]>,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("members", &self.members).field("tls", &self.tls.is_some()).finish()
    }
}

/// A lease on a volume.
pub struct EtcdLease {
    etcd: Etcd,
    /// The member that answered last.
    member: usize,
    channel: Option<Channel>,
    /// The volume's name among all.
    volume: String,
    own: Holder,
    terms: Terms,
    /// The epoch, and etcd's own lease.
    held: Option<(u64, i64)>,
}

impl fmt::Debug for EtcdLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdLease")
            .field("volume", &self.volume)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl EtcdLease {
    /// A lease on the volume called `volume`.
    pub fn new(etcd: Etcd, volume: String, own: Holder, terms: Terms) -> Self {
        Self { etcd, member: 0, channel: None, volume, own, terms, held: None }
    }

    fn key(&self, what: &str) -> String {
        format!("/vamos/volume/{}/{what}", self.volume)
    }

    /// What etcd is asked for: full seconds, and no less than others would wait.
    fn seconds(&self) -> i64 {
        let patience = self.terms.patience();
        i64::try_from(patience.as_secs() + 1).unwrap_or(i64::MAX)
    }

    pub(super) async fn claim(&mut self) -> Result<Claim, LeaseError> {
        let [holder_key, epoch_key, released_key] =
            ["holder", "epoch", "released"].map(|what| self.key(what));
        let (holder, epochs) = (self.read(&holder_key).await?, self.read(&epoch_key).await?);
        let (last, version) = epochs.map_or((0, 0), |kv| (number(&kv.value), kv.mod_revision));
        if let Some(kv) = holder {
            let by = holder_of(&kv.value);
            if by.as_ref() != Some(&self.own) {
                return Ok(Claim::Others { epoch: last, holder: by });
            }
            // Of this host before vamosd was restarted: its cell may be alive, and goes on under the same lease.
            self.held = Some((last, kv.lease));
            return Ok(Claim::Ours { epoch: last, after_release: false });
        }
        let released = self.read(&released_key).await?;
        let after_release = last == 0 || released.is_some_and(|kv| number(&kv.value) == last);
        let (epoch, lease) = (last + 1, self.grant().await?);
        let claimed = TxnRequest {
            compare: vec![
                compare(&holder_key, CompareTarget::Create, TargetUnion::CreateRevision(0)),
                compare(&epoch_key, CompareTarget::Mod, TargetUnion::ModRevision(version)),
            ],
            success: vec![put(&holder_key, text(&self.own)?, lease), put(&epoch_key, epoch.to_string(), 0)],
        };
        if !self.transact(claimed).await? {
            // Another was faster. What was granted for nothing lapses if it cannot be given back.
            let _ = self.revoke(lease).await;
            let holder = self.read(&holder_key).await?.and_then(|kv| holder_of(&kv.value));
            return Ok(Claim::Others { epoch, holder });
        }
        self.held = Some((epoch, lease));
        Ok(Claim::Ours { epoch, after_release })
    }

    pub(super) async fn renew(&mut self) -> Result<Renewal, LeaseError> {
        let Some((_, lease)) = self.held else { return Ok(Renewal::Lost) };
        let left = self
            .ask(move |channel| {
                async move {
                    let asked = once(LeaseKeepAliveRequest { id: lease });
                    let mut answers = LeaseClient::new(channel).lease_keep_alive(asked).await?.into_inner();
                    Ok(answers.message().await?.map_or(0, |answer| answer.ttl))
                }
                .boxed()
            })
            .await?;
        if left <= 0 {
            self.held = None;
            return Ok(Renewal::Lost);
        }
        Ok(Renewal::Valid)
    }

    pub(super) async fn release(&mut self) -> Result<(), LeaseError> {
        let Some((epoch, lease)) = self.held.take() else { return Ok(()) };
        let (holder_key, released_key) = (self.key("holder"), self.key("released"));
        let delete = DeleteRangeRequest { key: holder_key.clone().into() };
        let given_back = TxnRequest {
            compare: vec![compare(&holder_key, CompareTarget::Lease, TargetUnion::Lease(lease))],
            success: vec![
                RequestOp { request: Some(Request::RequestDeleteRange(delete)) },
                put(&released_key, epoch.to_string(), 0),
            ],
        };
        self.transact(given_back).await?;
        // The key is gone; this is for etcd's sake.
        let _ = self.revoke(lease).await;
        Ok(())
    }

    async fn read(&mut self, key: &str) -> Result<Option<KeyValue>, LeaseError> {
        let asked = RangeRequest { key: key.as_bytes().to_vec() };
        self.ask(move |channel| {
            let asked = asked.clone();
            async move { Ok(KvClient::new(channel).range(asked).await?.into_inner().kvs.pop()) }.boxed()
        })
        .await
    }

    /// Whether the comparisons held.
    async fn transact(&mut self, transaction: TxnRequest) -> Result<bool, LeaseError> {
        self.ask(move |channel| {
            let transaction = transaction.clone();
            async move { Ok(KvClient::new(channel).txn(transaction).await?.into_inner().succeeded) }.boxed()
        })
        .await
    }

    async fn grant(&mut self) -> Result<i64, LeaseError> {
        let ttl = self.seconds();
        self.ask(move |channel| {
            async move {
                let asked = LeaseGrantRequest { ttl };
                let granted = LeaseClient::new(channel).lease_grant(asked).await?.into_inner();
                if granted.error.is_empty() { Ok(granted.id) } else { Err(Status::unknown(granted.error)) }
            }
            .boxed()
        })
        .await
    }

    async fn revoke(&mut self, lease: i64) -> Result<(), LeaseError> {
        self.ask(move |channel| {
            async move { LeaseClient::new(channel).lease_revoke(LeaseRevokeRequest { id: lease }).await.map(drop) }
                .boxed()
        })
        .await
    }

    /// Asks the member that answered last, then the others. What is asked twice does no harm: a claim that was carried
    /// out and not answered is found to be another's, and its lease lapses; unless it is found to be ours.
    async fn ask<T>(
        &mut self,
        question: impl Fn(Channel) -> BoxFuture<'static, Result<T, Status>>,
    ) -> Result<T, LeaseError> {
        let count = self.etcd.members.len();
        let mut failure = LeaseError::Etcd { place: "nowhere".into(), reason: "it has no members".into() };
        for turn in 0..count {
            self.member = (self.member + usize::from(turn > 0)) % count;
            let place = self.etcd.members[self.member].clone();
            let channel = match self.channel.take() {
                Some(channel) => Ok(channel),
                None => self.connect(&place),
            };
            let answer = match channel {
                Ok(channel) => {
                    let answer = question(channel.clone()).await;
                    if answer.is_ok() {
                        self.channel = Some(channel);
                    }
                    answer
                }
                Err(reason) => Err(Status::unavailable(reason.to_string())),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(status) => {
                    failure = LeaseError::Etcd { place, reason: status.message().to_owned() };
                }
            }
        }
        Err(failure)
    }

    /// Connects when it is used; a member that is down is found out by then.
    fn connect(&self, place: &str) -> Result<Channel, tonic::transport::Error> {
        let mut endpoint = Endpoint::from_shared(place.to_owned())?
            .connect_timeout(ETCD_ANSWER_MAX)
            .timeout(ETCD_ANSWER_MAX);
        if let Some([authority, certificate, key]) = &self.etcd.tls {
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(authority))
                .identity(Identity::from_pem(certificate, key));
            endpoint = endpoint.tls_config(tls)?;
        }
        Ok(endpoint.connect_lazy())
    }
}

/// EQUAL is the comparison's default.
fn compare(key: &str, target: CompareTarget, value: TargetUnion) -> Compare {
    let key = key.as_bytes().to_vec();
    Compare { target: target.into(), key, target_union: Some(value), ..Compare::default() }
}

fn put(key: &str, value: String, lease: i64) -> RequestOp {
    let put = PutRequest { key: key.as_bytes().to_vec(), value: value.into_bytes(), lease };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

fn text(holder: &Holder) -> Result<String, LeaseError> {
    let failed =
        |error: serde_json::Error| LeaseError::Etcd { place: "here".into(), reason: error.to_string() };
    serde_json::to_string(holder).map_err(failed)
}

/// `None` for what no vamosd has written.
fn holder_of(value: &[u8]) -> Option<Holder> {
    serde_json::from_slice(value).ok()
}

fn number(value: &[u8]) -> u64 {
    String::from_utf8_lossy(value).parse().unwrap_or_default()
}
