//! The few calls of etcd's v3 API that are measured. Messages as in etcd's `rpc.proto` and `kv.proto`, only
//! the fields that are used; unknown ones are skipped by the decoder. Beside them a client for single calls and for watches;
//! loads are in `grpc.rs`.

use std::sync::OnceLock;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::Result;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub lease: i64,
}

/// The answer to a put, a compaction, a transfer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Done {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(bool, tag = "9")]
    pub count_only: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    #[prost(int64, tag = "4")]
    pub count: i64,
}

/// That the version of `key` is greater than `version`: result 1, target 0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    #[prost(int32, tag = "1")]
    pub result: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(int64, optional, tag = "4")]
    pub version: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestOp {
    #[prost(message, optional, tag = "2")]
    pub put: Option<PutRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CompactionRequest {
    #[prost(int64, tag = "1")]
    pub revision: i64,
}

/// Also the answer, and that to a renewal.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    pub ttl: i64,
    #[prost(int64, tag = "2")]
    pub id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseKeepAliveRequest {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseResponse {
    #[prost(int64, tag = "2")]
    pub id: i64,
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub create: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchResponse {
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(uint64, tag = "4")]
    pub leader: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MoveLeaderRequest {
    #[prost(uint64, tag = "1")]
    pub target_id: u64,
}

/// The runtime of every [`EtcdClient`], with as many workers as cores. Loads do without: `grpc.rs` has their client.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.enable_all().build().expect("a runtime")
    })
}

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
pub struct EtcdClient {
    grpc: Grpc<Channel>,
}

impl EtcdClient {
    /// Connects at the first call.
    pub fn new(port: u16) -> EtcdClient {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("a valid address");
        let _inside = runtime().enter();
        let grpc = Grpc::new(endpoint.tcp_nodelay(true).connect_lazy());
        EtcdClient { grpc: grpc.max_decoding_message_size(usize::MAX) }
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        Ok(self.grpc.unary(tonic::Request::new(request), path, codec).await?.into_inner())
    }

    pub async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        self.attach(key, value, 0).await
    }

    /// A put that hangs on this lease, where it is not 0.
    pub async fn attach(&mut self, key: Vec<u8>, value: Vec<u8>, lease: u64) -> Result<()> {
        let request = PutRequest { key, value, lease: lease as i64 };
        let _: Done = self.call("/etcdserverpb.KV/Put", request).await?;
        Ok(())
    }

    /// A linearizable read.
    pub async fn get(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let request = RangeRequest { key, ..RangeRequest::default() };
        let mut found: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(found.kvs.pop().map(|kv| kv.value))
    }

    /// Of all keys; linearizable.
    pub async fn count(&mut self) -> Result<u64> {
        let request = RangeRequest { key: vec![0], range_end: vec![0], count_only: true };
        let found: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(found.count as u64)
    }

    pub async fn compact(&mut self, revision: u64) -> Result<()> {
        let request = CompactionRequest { revision: revision as i64 };
        let _: Done = self.call("/etcdserverpb.KV/Compact", request).await?;
        Ok(())
    }

    /// The store's revision.
    pub async fn revision(&mut self) -> Result<u64> {
        let request = RangeRequest { key: vec![0], ..RangeRequest::default() };
        let found: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(found.header.unwrap_or_default().revision as u64)
    }

    pub async fn grant(&mut self, id: u64, ttl_s: u64) -> Result<()> {
        let request = LeaseGrantRequest { ttl: ttl_s as i64, id: id as i64 };
        let _: LeaseResponse = self.call("/etcdserverpb.Lease/LeaseGrant", request).await?;
        Ok(())
    }

    /// A call whose requests come one by one, and whose answers too. The first request must be there: etcd answers nothing
    /// before.
    pub async fn streaming<Q, A>(&mut self, path: &'static str, requests: Receiver<Q>) -> Result<Streaming<A>>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        let requests = tonic::Request::new(ReceiverStream::new(requests));
        Ok(self.grpc.streaming(requests, path, codec).await?.into_inner())
    }

    /// The member's own id and its leader's.
    pub async fn status(&mut self) -> Result<(u64, u64)> {
        let status: StatusResponse = self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await?;
        Ok((status.header.unwrap_or_default().member_id, status.leader))
    }

    /// Leadership goes to this member, when this is answered. Only the leader can be asked.
    pub async fn move_leader(&mut self, target_id: u64) -> Result<()> {
        let path = "/etcdserverpb.Maintenance/MoveLeader";
        let _: Done = self.call(path, MoveLeaderRequest { target_id }).await?;
        Ok(())
    }
}

/// Watches of these keys over one stream, which lasts as long as the sender. Returns when all have begun.
pub async fn watch(
    client: &mut EtcdClient,
    keys: Vec<Vec<u8>>,
) -> Result<(Sender<WatchRequest>, Streaming<WatchResponse>)> {
    let (sender, requests) = mpsc::channel(keys.len());
    let count = keys.len();
    for key in keys {
        sender.send(WatchRequest { create: Some(WatchCreateRequest { key }) }).await?;
    }
    let mut answers: Streaming<WatchResponse> =
        client.streaming("/etcdserverpb.Watch/Watch", requests).await?;
    for _ in 0..count {
        let answer = answers.message().await?.ok_or("the stream of watches ended")?;
        if !answer.created {
            return Err("an event before all watches have begun".into());
        }
    }
    Ok((sender, answers))
}
