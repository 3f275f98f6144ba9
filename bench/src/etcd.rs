//! The few calls of etcd's v3 API that are measured. Messages as in etcd's `rpc.proto` and `kv.proto`, only
//! the fields that are used; unknown ones are skipped by the decoder.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::Result;
use crate::load::{Kind, Outcome, Plan};

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
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PutResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
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

#[derive(Clone, PartialEq, prost::Message)]
pub struct MoveLeaderResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
}

/// The runtime of all etcd clients: as many workers as cores, as etcd's own benchmark tool has.
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
        EtcdClient { grpc: Grpc::new(endpoint.tcp_nodelay(true).connect_lazy()) }
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
        let _: PutResponse = self.call("/etcdserverpb.KV/Put", PutRequest { key, value }).await?;
        Ok(())
    }

    /// A linearizable read.
    pub async fn get(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let mut found: RangeResponse = self.call("/etcdserverpb.KV/Range", RangeRequest { key }).await?;
        Ok(found.kvs.pop().map(|kv| kv.value))
    }

    /// The member's own id and its leader's.
    pub async fn status(&mut self) -> Result<(u64, u64)> {
        let status: StatusResponse = self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await?;
        Ok((status.header.unwrap_or_default().member_id, status.leader))
    }

    /// Leadership goes to this member, when this is answered. Only the leader can be asked.
    pub async fn move_leader(&mut self, target_id: u64) -> Result<()> {
        let path = "/etcdserverpb.Maintenance/MoveLeader";
        let _: MoveLeaderResponse = self.call(path, MoveLeaderRequest { target_id }).await?;
        Ok(())
    }
}

/// `plan.clients` tasks, each with one request in flight, over `plan.connections` connections.
pub fn run(plan: &Plan) -> Result<Outcome> {
    runtime().block_on(async {
        let started = Instant::now();
        let measure_from = started + plan.warm_up;
        let end = measure_from + plan.duration;
        let connections: Vec<EtcdClient> =
            (0..plan.connections).map(|_| EtcdClient::new(plan.port)).collect();
        let tasks: Vec<_> = (0..plan.clients)
            .map(|number| {
                let client = connections[number % plan.connections].clone();
                tokio::spawn(one_client(client, plan.clone(), number, measure_from, end))
            })
            .collect();
        let mut all = Outcome::new();
        for task in tasks {
            all.add(&task.await??);
        }
        all.seconds = match plan.total {
            Some(_) => started.elapsed().as_secs_f64(),
            None => plan.duration.as_secs_f64(),
        };
        Ok(all)
    })
}

async fn one_client(
    mut client: EtcdClient,
    plan: Plan,
    number: usize,
    measure_from: Instant,
    end: Instant,
) -> Result<Outcome> {
    let mut outcome = Outcome::new();
    let mut keys = plan.keys_of(number);
    let value = plan.value();
    let mut errors_in_a_row = 0;
    while let Some(key) = keys.next_key() {
        let sent = Instant::now();
        if plan.total.is_none() && sent >= end {
            break;
        }
        let done = match plan.kind {
            Kind::Put => client.put(key.to_vec(), value.clone()).await,
            Kind::Get => client.get(key.to_vec()).await.map(|_| ()),
        };
        let now = Instant::now();
        let counted = plan.total.is_some() || (now >= measure_from && now < end);
        match done {
            Ok(()) => {
                errors_in_a_row = 0;
                if counted {
                    outcome.success(now - sent, 1);
                }
            }
            Err(e) => {
                outcome.errors += 1;
                errors_in_a_row += 1;
                if errors_in_a_row > 20 {
                    return Err(e);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    Ok(outcome)
}
