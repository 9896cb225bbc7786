//! The client of etcd: the part of its interface that leases take (feature `grpc`).

#![allow(missing_docs, reason = "generated from etcd.proto, which documents every field")]
#![allow(clippy::doc_lazy_continuation, unused_qualifications, reason = "generated")]

tonic::include_proto!("etcdserverpb");
