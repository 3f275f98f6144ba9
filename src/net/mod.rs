//! The event loop and its sockets. [`serve`] is a whole server process.

mod accept;
mod busy;
mod clients;
mod counts;
mod event_loop;
mod inbound;
mod join;
mod layout;
mod names;
mod peers;
mod pipe;
pub mod settings;
mod slots;
mod stop;
mod url;
mod workers;

pub use layout::Layout;
pub use settings::Settings;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use log::{info, warn};
use mio::net::{TcpListener, UnixStream};
use mio::{Poll, Waker};

use crate::api::{Limits, Member, VERSION};
use crate::base::ids::{cluster_id, member_id};
use crate::base::time::MS;
use crate::base::{Error, Result, Rng};
use crate::io::os::{OsClock, OsDisk, OsEntropy};
use crate::io::{Clock, Disk, Entropy};
use crate::node::{self, Bootstrap, Config, Node, Opened, Rules, SWEEP_WORK_MAX};
use crate::proto::http::{Allowed, Gateway, Scope, Site};
use crate::proto::line::ServerInfo;
use crate::proto::{grpc, peer};

use accept::Sockets;
use clients::Spoken;
use event_loop::{Ended, EventLoop, Shell};
use peers::Peers;
use workers::Workers;

/// Runs a member until a signal stops it (Ok) or it must not go on (Err). One whose files are damaged, and whose
/// state the others have, starts again by itself: perhaps there is nobody who would restart it.
pub fn serve(settings: &Settings) -> Result<()> {
    loop {
        match serve_once(settings)? {
            Ended::Stopped => return Ok(()),
            Ended::Failed(error) => return Err(error),
            Ended::Damaged(damage) => warn!("{damage}: starting again, to be repaired from the others"),
        }
    }
}

/// One life. Sockets are bound before any file is made: a port in use leaves the directory untouched.
fn serve_once(settings: &Settings) -> Result<Ended> {
    let sockets = Sockets {
        for_clients: listen(&settings.listen_client)?,
        for_http: listen_http(settings)?,
        for_members: listen(&settings.listen_peer)?,
    };
    raise_file_limit();
    let failed = |e| Error::io("cannot prepare", "the event loop".as_ref(), e);
    let poll = Poll::new().map_err(failed)?;
    let waker = Arc::new(Waker::new(poll.registry(), event_loop::WAKER).map_err(failed)?);
    let mut signals = watch_signals().map_err(failed)?;

    let (clock, mut entropy) = (OsClock, OsEntropy);
    let mut rng = Rng::new(entropy.seed());
    let config = node_config(settings, &clock);
    let fresh = !OsDisk.exists(&node::tree_path(&config.tree_dir)).unwrap_or(false);
    let mut found = None;
    if settings.join_existing && fresh {
        found = join::find(settings, &mut signals)?;
        if found.is_none() {
            return Ok(Ended::Stopped);
        }
    }
    let bootstrap = bootstrap(settings, found.as_ref())?;
    let data_dirs = vec![config.tree_dir.clone(), config.wal_dir.clone()];
    let reserve_bytes = RESERVE_BYTES;
    let Opened { mut node, log_writer, notes, lock } =
        Node::open(&OsDisk, config, &bootstrap, rng.next_u64(), clock.now())?;
    for note in notes {
        warn!("recovery: {note}");
    }
    if node.is_blank() {
        // On a second start the flags may be those of the first, or say no more who is there: ask again.
        match found.map_or_else(|| join::find(settings, &mut signals), |found| Ok(Some(found))) {
            Ok(Some(found)) => node.acquaint(found.members),
            Ok(None) => return Ok(Ended::Stopped),
            // One of the first members knows the others by its flags.
            Err(why) if node.is_recovering() && !settings.join_existing => warn!("{why}"),
            Err(why) => return Err(why),
        }
    }
    if node.is_removed() {
        return Err(Error::Refused(format!("member {:x} was removed from the cluster", node.id())));
    }
    info!(
        "member {:x} of cluster {:x} serves clients on {:?}",
        node.id(),
        node.cluster(),
        settings.listen_client
    );

    if !settings.listen_client_http.is_empty() || !settings.listen_metrics.is_empty() {
        let (http, metrics) = (&settings.listen_client_http, &settings.listen_metrics);
        info!("HTTP alone is served on {http:?}, metrics and health on {metrics:?}");
    }

    let mut peers = {
        let hello = peer::Hello::new(node.cluster(), node.id(), 0, node.promise());
        Peers::new(hello, event_loop::PEERS, rng.next_u64())
    };
    peers.set_members(&event_loop::others(&node), clock.now());
    let workers = Workers::start(OsDisk, log_writer, waker, || OsClock.now())?;
    let (info, grpc) = (Arc::new(server_info(settings, &node)), Arc::new(grpc_settings(settings)));
    let gateway = Gateway { info: info.clone(), room: grpc.room.clone(), counts: grpc.counts.clone() };
    let spoken = Spoken {
        info,
        grpc,
        site: Rc::new(site(settings, gateway)),
        http: settings.listen_client_http.is_empty(),
    };
    let shell = Shell { node, clock, poll, workers, peers, spoken, signals, data_dirs, reserve_bytes };
    let ended = EventLoop::new(shell, sockets)?.run();
    drop(lock);
    Ok(ended)
}

/// With less room than this, puts are refused: what is under way, and deletes, still fit.
const RESERVE_BYTES: u64 = 48 << 20;

/// The unit in which a file system caches.
const TREE_PAGE_BYTES: usize = 4096;

fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>> {
    let bind = |&address: &SocketAddr| {
        accept::listen(address).map_err(|e| Error::Refused(format!("cannot listen on {address}: {e}")))
    };
    addresses.iter().map(bind).collect()
}

fn listen_http(settings: &Settings) -> Result<Vec<(TcpListener, Scope)>> {
    let mut all = Vec::new();
    for (addresses, scope) in
        [(&settings.listen_client_http, Scope::Clients), (&settings.listen_metrics, Scope::Monitoring)]
    {
        all.extend(listen(addresses)?.into_iter().map(|listener| (listener, scope)));
    }
    Ok(all)
}

fn site(settings: &Settings, gateway: Gateway) -> Site {
    let allowed = |list: &[String]| Allowed::from_list(list.iter().map(String::as_str));
    let site = Site::new(allowed(&settings.host_whitelist), allowed(&settings.cors));
    let calls = gateway.counts.clone();
    Site { calls, gateway: settings.grpc_gateway.then_some(gateway), ..site }
}

/// Descriptors for which the kernel's table has room from the start, at eight bytes each and not of this process' memory.
const DESCRIPTORS: u64 = 65_536;

/// Ten thousand connections need as many descriptors: take what the hard limit allows.
///
/// The table is made large now. It grows by doubling, and whoever opens the descriptor for which it grows waits until no
/// processor looks at the old one any more: 8 to 25 ms in which the loop would serve nobody, six times until there are ten
/// thousand. A table never shrinks, and in a process of one thread nobody waits.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!("cannot raise the limit of open files: {error}");
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    let last = i32::try_from(most.saturating_sub(1)).unwrap_or(i32::MAX);
    // It is closed at once. A failure costs those pauses and nothing else.
    let _ = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last);
}

fn watch_signals() -> std::io::Result<UnixStream> {
    let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    reader.set_nonblocking(true)?;
    Ok(UnixStream::from_std(reader))
}

/// Ids as etcd derives them, from the flags; those of a member that joins, as it was told them.
fn bootstrap(settings: &Settings, found: Option<&join::Found>) -> Result<Bootstrap> {
    let trust_disk = settings.join_existing;
    if let Some(join::Found { cluster, me, .. }) = found {
        return Ok(Bootstrap { cluster: *cluster, member: *me, members: Vec::new(), trust_disk });
    }
    let member = |(name, urls): &(String, Vec<String>)| Member {
        id: member_id(urls, &settings.initial_cluster_token),
        name: name.clone(),
        peer_urls: urls.clone(),
        client_urls: Vec::new(),
        learner: false,
    };
    let mut members: Vec<Member> = settings.initial_cluster.iter().map(member).collect();
    members.sort_by_key(|member| member.id);
    let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
    let Some(me) = members.iter().find(|member| member.name == settings.name) else {
        return Err(Error::Refused(format!("{} is not in the initial cluster", settings.name)));
    };
    Ok(Bootstrap { cluster: cluster_id(&ids), member: me.id, members, trust_disk })
}

fn node_config(settings: &Settings, clock: &impl Clock) -> Config {
    let Layout { member_dir, wal_dir } = Layout::new(&settings.data_dir, settings.wal_dir.as_deref());
    Config {
        name: settings.name.clone(),
        client_urls: settings.advertise_client_urls.clone(),
        tree_dir: member_dir,
        wal_dir,
        wal_segment_bytes: settings.wal_segment_bytes,
        heartbeat_interval: settings.heartbeat_interval_ms * MS,
        election_timeout: settings.election_timeout_ms * MS,
        pre_vote: settings.pre_vote,
        lease_reads: settings.lease_reads,
        catchup_entries: settings.snapshot_catchup_entries,
        tree_page_bytes: TREE_PAGE_BYTES,
        checkpoint_entries: settings.snapshot_count,
        sweep_work_max: SWEEP_WORK_MAX,
        retention: settings.retention,
        quota_bytes: settings.quota_backend_bytes,
        range_parts: node::PARTS,
        members: Rules {
            strict: settings.strict_reconfig_check,
            learners_max: settings.max_learners,
            unix_ms_at_zero: clock.wall_ms().saturating_sub(clock.now().0 / MS),
            force_new_cluster: settings.force_new_cluster,
        },
        watch_progress_interval: settings.watch_progress_interval_ms * MS,
        watch_work: node::WATCH_WORK,
    }
}

fn server_info<D: Disk>(settings: &Settings, node: &Node<D>) -> ServerInfo {
    ServerInfo {
        cluster: node.cluster(),
        member: node.id(),
        version: VERSION,
        limits: Limits { request_bytes_max: settings.max_request_bytes, txn_ops_max: settings.max_txn_ops },
        config: settings.effective.clone(),
    }
}

fn grpc_settings(settings: &Settings) -> grpc::Settings {
    grpc::Settings {
        streams_max: settings.grpc_streams_max,
        ping_every: settings.grpc_ping_every_ms * MS,
        ping_patience: settings.grpc_ping_patience_ms * MS,
        ..grpc::Settings::default()
    }
}
