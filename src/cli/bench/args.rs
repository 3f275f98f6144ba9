//! The words of `pawld bench`: those of etcd's benchmark tool, as far as they mean something here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "pawld bench", about = "Loads a cluster and says how fast it answered")]
#[command(disable_version_flag = true)]
pub struct Line {
    #[command(flatten)]
    pub common: Common,
    /// Without one: puts and gets of 1000 clients, whatever the flags of the load say, and the two figures that are compared
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Servers, with commas between
    #[arg(
        long,
        global = true,
        value_name = "ADDRESSES",
        default_value = "127.0.0.1:2379",
        value_delimiter = ','
    )]
    pub endpoints: Vec<String>,
    /// Connections, spread over the endpoints
    #[arg(long, global = true, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub conns: u32,
    /// Clients, spread over the connections; each has --pipeline requests under way
    #[arg(long, global = true, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub clients: u32,
    /// Ask the leader alone; it must be one of the endpoints
    #[arg(long, global = true)]
    pub target_leader: bool,
    /// Requests that a client sends at once
    #[arg(long, global = true, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub pipeline: u32,
    /// Requests in all
    #[arg(long, global = true, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub total: u64,
    /// Send no more after so long, whatever is left of --total; 0: no bound
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub duration: u64,
    /// Requests a second, each timed from when it was due; 0: as fast as they are answered
    #[arg(long, global = true, value_name = "RATE", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    pub rate: u64,
    /// For people or for programs
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = Output::Normal)]
    pub output: Output,
    /// Also a page with charts: one file that needs nothing else
    #[arg(long, global = true, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Normal,
    Json,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Puts
    Put {
        #[command(flatten)]
        keys: KeyOptions,
    },
    /// Reads of one key or range, again and again; without one, of keys at random
    Range {
        #[command(flatten)]
        span: SpanOptions,
        #[command(flatten)]
        keys: KeyOptions,
    },
    /// Transactions of puts
    TxnPut {
        #[command(flatten)]
        keys: KeyOptions,
        /// Puts in each
        #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        txn_ops: u32,
    },
    /// Transactions of one read or one put
    TxnMixed {
        #[command(flatten)]
        span: SpanOptions,
        #[command(flatten)]
        keys: KeyOptions,
        /// Reads for each put
        #[arg(long, value_name = "RATIO", default_value_t = 1.0, value_parser = ratio)]
        rw_ratio: f64,
        /// Keys that a read answers at most; 0: all
        #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
        limit: u64,
    },
    /// Renewals of leases, one for each connection
    LeaseKeepalive,
    /// Many watches, and puts of what they watch: how long until each began, and until each was told
    Watch {
        #[command(flatten)]
        watches: WatchOptions,
        /// How many keys are watched
        #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        watched_key_total: u64,
    },
    /// Puts of one key, and how long until its watchers were told
    WatchLatency {
        #[command(flatten)]
        watches: WatchOptions,
    },
}

#[derive(Clone, Debug, Args)]
pub struct KeyOptions {
    /// Bytes of each key
    #[arg(long, value_name = "BYTES", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub key_size: u32,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 8, value_parser = clap::value_parser!(u32).range(..=1_500_000))]
    pub val_size: u32,
    /// How many keys there are
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub key_space_size: u64,
    /// Keys one after the other instead of at random
    #[arg(long)]
    pub sequential_keys: bool,
}

#[derive(Clone, Debug, Args)]
pub struct WatchOptions {
    /// Connections with watches
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub streams: u32,
    /// Watches on each
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub watch_per_stream: u32,
    /// Puts, over one more connection; --total is not asked
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub put_total: u64,
    /// Puts a second; 0: the next when the last is answered
    #[arg(long, value_name = "RATE", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub put_rate: u64,
    /// Bytes of each key
    #[arg(long, value_name = "BYTES", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub key_size: u32,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 32, value_parser = clap::value_parser!(u32).range(..=1_500_000))]
    pub val_size: u32,
}

#[derive(Clone, Debug, Args)]
pub struct SpanOptions {
    #[arg(value_name = "KEY")]
    pub key: Option<String>,
    /// Up to before this key
    #[arg(value_name = "END", requires = "key")]
    pub end: Option<String>,
    /// Linearizable (l) or serializable (s)
    #[arg(long, value_name = "l|s", value_enum, default_value_t = Consistency::L)]
    pub consistency: Consistency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Consistency {
    L,
    S,
}

fn ratio(word: &str) -> Result<f64, String> {
    match word.parse::<f64>() {
        Ok(ratio) if ratio.is_finite() && ratio >= 0.0 => Ok(ratio),
        _ => Err("a number of 0 or more is expected".to_owned()),
    }
}
