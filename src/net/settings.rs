//! What a server is started with: the flags after every rule has been checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::node::Retention;

/// The checked settings of one server process. `cli` makes them from flags and environment.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    pub data_dir: PathBuf,
    /// Where segments go if not into `data_dir`.
    pub wal_dir: Option<PathBuf>,
    /// Bytes of one segment: whole sectors.
    pub wal_segment_bytes: u64,
    pub listen_client: Vec<SocketAddr>,
    /// For HTTP alone, which is not spoken on the ports for clients then; none: it is.
    pub listen_client_http: Vec<SocketAddr>,
    /// Metrics and health, and nothing else.
    pub listen_metrics: Vec<SocketAddr>,
    /// Host fields that are taken, and origins that may read; `*` among them: all.
    pub host_whitelist: Vec<String>,
    pub cors: Vec<String>,
    /// etcd's API as JSON, under `/v3/`.
    pub grpc_gateway: bool,
    pub listen_peer: Vec<SocketAddr>,
    pub advertise_client_urls: Vec<String>,
    pub initial_advertise_peer_urls: Vec<String>,
    /// Name and peer URLs of every initial member, this one included; sorted by name.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    pub initial_cluster_token: String,
    /// `--initial-cluster-state existing`.
    pub join_existing: bool,
    pub force_new_cluster: bool,
    pub strict_reconfig_check: bool,
    /// Learners at one time.
    pub max_learners: usize,
    pub watch_progress_interval_ms: u64,
    pub heartbeat_interval_ms: u64,
    pub election_timeout_ms: u64,
    pub pre_vote: bool,
    pub lease_reads: bool,
    /// Entries kept in the log behind the applied index for followers that lag.
    pub snapshot_catchup_entries: u64,
    /// Entries between two checkpoints at most.
    pub snapshot_count: u64,
    /// How much history is kept; None = all.
    pub retention: Option<Retention>,
    /// Bytes in use at which puts are refused; None = no quota.
    pub quota_backend_bytes: Option<u64>,
    pub max_request_bytes: usize,
    pub max_txn_ops: usize,
    /// Streams on one gRPC connection; more than a connection can have anyway = as many.
    pub grpc_streams_max: u32,
    /// A gRPC client that has been silent for so long is asked whether it is there (0 = never), and must answer within the
    /// second.
    pub grpc_ping_every_ms: u64,
    pub grpc_ping_patience_ms: u64,
    /// Name and value of every flag in effect, for `CONFIG GET` and the start log.
    pub effective: Vec<(String, String)>,
}
