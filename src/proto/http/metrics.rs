//! `/metrics`: what a member counts, under the names by which it is looked for.
//!
//! Where etcd has a metric whose meaning there is one here, the name, the type and the labels are etcd's, so that its
//! alerts and dashboards go on working; ids are hexadecimal as there. Types and suffixes that Prometheus' own lint
//! complains of (`..._total` that are gauges) are kept for that reason. What etcd does not have begins with `pawl_`. What
//! has no meaning here (a Go runtime, bbolt, the old API, proxies) is left out and not shown as 0.

use super::page::Page;
use super::site::Counters;
use crate::api::metrics::{Clients, Metrics, Peer, Process, Shell};
use crate::api::status::RpcStatus;
use crate::api::{Alarm, AlarmKind, Code, ETCD_VERSION, Request, VERSION};
use crate::base::MemberId;
use crate::proto::etcd::methods::{Rpc, Shape};
use crate::proto::etcd::{Counted, Counts};

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn text(metrics: &Metrics, counters: &Counters, rpcs: &Counts) -> String {
    let mut page = Page::default();
    server(&mut page, metrics);
    health(&mut page, counters);
    disk(&mut page, metrics);
    store(&mut page, metrics);
    watches_and_leases(&mut page, metrics);
    network(&mut page, metrics);
    calls(&mut page, rpcs);
    own(&mut page, metrics);
    process(&mut page, &metrics.shell.process);
    page.into_text()
}

/// As gRPC's middleware for Prometheus has them. All methods are there from the beginning, so that the first call makes a rate; of
/// statuses OK, and those that there were.
fn calls(page: &mut Page, rpcs: &Counts) {
    let labels = |rpc: &Rpc| {
        let shape = match rpc.shape {
            Shape::Unary => "unary",
            Shape::Server => "server_stream",
            Shape::Both => "bidi_stream",
        };
        [("grpc_method", rpc.name), ("grpc_service", rpc.service), ("grpc_type", shape)]
    };
    type Count = fn(&Counted) -> u64;
    let each: [(&str, &str, Count); 3] = [
        ("grpc_server_started_total", "Calls that were begun.", |of| of.started),
        ("grpc_server_msg_received_total", "Messages of clients.", |of| of.received),
        ("grpc_server_msg_sent_total", "Messages to clients.", |of| of.sent),
    ];
    for (name, help, count) in each {
        let mut family = page.counters(name, help);
        rpcs.all().for_each(|(rpc, counted)| family.sample(&labels(rpc), count(&counted)));
    }
    let mut family = page.counters("grpc_server_handled_total", "Calls that have ended, and how.");
    for (rpc, counted) in rpcs.all() {
        for (code, count) in RpcStatus::ALL.into_iter().zip(counted.handled) {
            if count > 0 || code == RpcStatus::Ok {
                family.sample(&[&[("grpc_code", code.word())][..], &labels(rpc)].concat(), count);
            }
        }
    }
}

fn server(page: &mut Page, metrics: &Metrics) {
    let Metrics { status, counts, gauges, .. } = metrics;
    let (id, leads) = (hex(status.member_id), status.leader == status.member_id && status.leader != 0);
    page.gauges("etcd_server_id", "Which member this is.").sample(&[("server_id", &id)], 1);
    page.gauges("etcd_server_version", "The release of etcd whose interface this one speaks.")
        .sample(&[("server_version", ETCD_VERSION)], 1);
    let minor = ETCD_VERSION.rsplit_once('.').map_or(ETCD_VERSION, |(minor, _)| minor);
    page.gauges("etcd_cluster_version", "The same of the cluster.").sample(&[("cluster_version", minor)], 1);
    page.gauge("etcd_server_has_leader", "Whether a leader is known.", u8::from(status.leader != 0));
    page.gauge("etcd_server_is_leader", "Whether this member leads.", u8::from(leads));
    page.gauge("etcd_server_is_learner", "Whether this member is a learner.", u8::from(status.learner));
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "How often a leader was seen that did not lead before.",
        counts.leader_changes,
    );
    page.gauge(
        "etcd_server_proposals_committed_total",
        "The last entry of the log that is committed, as this member knows it.",
        status.commit_index,
    );
    page.gauge(
        "etcd_server_proposals_applied_total",
        "The last entry of the log that this member has applied.",
        status.applied_index,
    );
    page.gauge("etcd_server_proposals_pending", "Writes that wait to be applied.", gauges.proposals_pending);
    page.counter(
        "etcd_server_proposals_failed_total",
        "Writes that ended without being known to have happened.",
        counts.proposals_failed,
    );
    page.counter(
        "etcd_server_read_indexes_failed_total",
        "Linearizable reads that were not confirmed in time.",
        counts.read_indexes_failed,
    );
    page.gauge(
        "etcd_server_snapshot_apply_in_progress_total",
        "1 while a snapshot takes the place of the state.",
        u8::from(gauges.installing),
    );
    page.gauge(
        "etcd_server_quota_backend_bytes",
        "Bytes in use at which puts are refused; 0 without a quota.",
        gauges.quota_bytes,
    );
    let mut alarms = page.gauges("etcd_debugging_server_alarms", "1 for each alarm that stands.");
    for Alarm { member, kind } in &status.alarms {
        alarms.sample(&[("server_id", &hex(*member)), ("alarm_type", kind.word())], 1);
    }
}

fn health(page: &mut Page, counters: &Counters) {
    let (good, bad) = counters.health();
    page.counter("etcd_server_health_success", "Requests for /health that were answered with true.", good);
    page.counter("etcd_server_health_failures", "Requests for /health that were answered with false.", bad);
    let checks = counters.checks();
    let mut last = page.gauges("etcd_server_healthcheck", "What came of each check the last time.");
    for one in checks.iter().filter(|one| one.good + one.bad > 0) {
        let labels = [("type", one.probe.name()), ("name", one.check.name())];
        last.sample(&labels, u8::from(one.last_was_good));
    }
    let mut all = page.counters("etcd_server_healthchecks_total", "Checks of /livez and /readyz.");
    for one in &checks {
        for (status, count) in [("success", one.good), ("error", one.bad)] {
            let labels = [("type", one.probe.name()), ("name", one.check.name()), ("status", status)];
            all.sample(&labels, count);
        }
    }
}

fn disk(page: &mut Page, metrics: &Metrics) {
    let Shell { log_syncs, log_bytes, checkpoints, .. } = &metrics.shell;
    page.histograms("etcd_disk_wal_fsync_duration_seconds", "Syncs of the log.").histogram(&[], log_syncs);
    page.gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log.", log_bytes);
    page.histograms(
        "etcd_disk_backend_commit_duration_seconds",
        "Checkpoints of the tree; no write waits for one.",
    )
    .histogram(&[], checkpoints);
}

fn store(page: &mut Page, metrics: &Metrics) {
    let Metrics { status, counts, gauges, .. } = metrics;
    page.gauge("etcd_mvcc_db_total_size_in_bytes", "The length of the tree's file.", status.db_size);
    page.gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "The pages of it that are in use.",
        status.db_size_in_use,
    );
    page.counter("etcd_mvcc_put_total", "Puts applied, those in transactions included.", counts.puts);
    page.counter("etcd_mvcc_delete_total", "The same of deletes.", counts.deletes);
    page.counter("etcd_mvcc_txn_total", "Transactions applied.", counts.txns);
    page.counter("etcd_mvcc_range_total", "Ranges read at this member.", counts.ranges);
    page.gauge("etcd_debugging_mvcc_keys_total", "Keys that there are.", gauges.keys);
    page.gauge("etcd_debugging_mvcc_current_revision", "The revision of the store.", status.revision);
    page.gauge(
        "etcd_debugging_mvcc_compact_revision",
        "The first revision that can still be read.",
        status.compact_revision,
    );
}

fn watches_and_leases(page: &mut Page, metrics: &Metrics) {
    let Metrics { counts, gauges, .. } = metrics;
    page.gauge("etcd_debugging_mvcc_watcher_total", "Watchers at this member.", gauges.watchers);
    page.gauge("etcd_debugging_mvcc_watch_stream_total", "Who has watchers.", gauges.watch_streams);
    page.gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that are behind.", gauges.slow_watchers);
    page.counter("etcd_debugging_mvcc_events_total", "Events told to watchers.", counts.events);
    page.counter("etcd_debugging_lease_granted_total", "Leases granted.", counts.leases_granted);
    page.counter(
        "etcd_debugging_lease_revoked_total",
        "Leases that ended, by request or by themselves.",
        counts.leases_revoked,
    );
    page.counter(
        "etcd_debugging_lease_renewed_total",
        "Renewals, counted by who leads.",
        counts.leases_renewed,
    );
    page.counter(
        "etcd_debugging_server_lease_expired_total",
        "Leases that ended by themselves.",
        counts.leases_expired,
    );
}

fn network(page: &mut Page, metrics: &Metrics) {
    let (own, peers) = (hex(metrics.status.member_id), &metrics.shell.peers);
    let mut active = page.gauges("etcd_network_active_peers", "1 where the connection to a member is up.");
    for peer in peers.iter().filter(|peer| peer.connected) {
        active.sample(&[("Local", &own), ("Remote", &hex(peer.id))], 1);
    }
    let mut lost =
        page.counters("etcd_network_disconnected_peers_total", "Ends of connections that had been up.");
    for peer in peers {
        lost.sample(&[("Local", &own), ("Remote", &hex(peer.id))], peer.disconnects);
    }
    let mut known = page.gauges("etcd_network_known_peers", "Members that this one dials.");
    for peer in peers {
        known.sample(&[("Local", &own), ("Remote", &hex(peer.id))], 1);
    }
    by_peer(page, peers, "etcd_network_peer_sent_bytes_total", "Bytes sent to a member.", "To", |peer| {
        peer.sent_bytes
    });
    by_peer(
        page,
        peers,
        "etcd_network_peer_received_bytes_total",
        "Bytes received from a member.",
        "From",
        |peer| peer.received_bytes,
    );
    by_peer(
        page,
        peers,
        "etcd_network_peer_sent_failures_total",
        "Messages to a member that could not be sent and were dropped.",
        "To",
        |peer| peer.dropped,
    );
    let mut times = page.histograms(
        "etcd_network_peer_round_trip_time_seconds",
        "As leader: from the begin of a round of messages to a member's answer, its disk included where there were entries.",
    );
    for (id, histogram) in &metrics.round_trips {
        times.histogram(&[("To", &hex(*id))], histogram);
    }
}

fn by_peer(
    page: &mut Page,
    peers: &[Peer],
    name: &str,
    help: &str,
    label: &str,
    value: impl Fn(&Peer) -> u64,
) {
    let mut family = page.counters(name, help);
    for peer in peers {
        family.sample(&[(label, &hex(peer.id))], value(peer));
    }
}

/// What etcd does not have.
fn own(page: &mut Page, metrics: &Metrics) {
    let Metrics { status, counts, gauges, shell, .. } = metrics;
    let labels = [("version", VERSION), ("etcd_version", ETCD_VERSION)];
    page.gauges("pawl_build_info", "What runs here.").sample(&labels, 1);
    page.gauge("pawl_term", "Raft's term.", status.term);
    let mut alarms = page.gauges("pawl_alarm", "Whether an alarm of this kind stands.");
    for kind in AlarmKind::ALL {
        let stands = status.alarms.iter().any(|alarm| alarm.kind == kind);
        alarms.sample(&[("type", kind.word())], u8::from(stands));
    }
    page.gauge(
        "pawl_repairing",
        "1 while this member gets back what it lost, and serves nothing.",
        u8::from(gauges.repairing),
    );
    let mut requests = page.counters("pawl_requests_total", "Requests taken, of all protocols, by kind.");
    for (name, count) in Request::NAMES.iter().zip(counts.requests) {
        requests.sample(&[("request", name)], count);
    }
    let mut faults =
        page.counters("pawl_request_faults_total", "Requests answered with an error, by its code.");
    for (code, count) in Code::ALL.iter().zip(counts.faults) {
        faults.sample(&[("code", code.word())], count);
    }
    page.histograms("pawl_write_duration_seconds", "From the decoding of a client's write to its answer.")
        .histogram(&[], &counts.writes);
    page.gauge(
        "pawl_proposals_pending_bytes",
        "Of writes that wait to be applied.",
        gauges.proposal_bytes_pending,
    );
    page.gauge("pawl_reads_pending", "Reads that wait for what they must see.", gauges.reads_pending);
    page.gauge(
        "pawl_tree_dirty_bytes",
        "Changed pages that are not in the tree's file yet; the log has what they say.",
        gauges.dirty_bytes,
    );
    page.counter("pawl_loop_turns_total", "Turns of the event loop.", shell.turns);
    let Clients { open, accepted, received_bytes, sent_bytes } = shell.clients;
    page.gauge("pawl_client_connections", "Connections of clients, of all protocols.", open);
    page.counter("pawl_client_connections_accepted_total", "Those that were ever taken.", accepted);
    page.counter("pawl_client_received_bytes_total", "Bytes received from clients.", received_bytes);
    page.counter("pawl_client_sent_bytes_total", "Bytes sent to clients.", sent_bytes);
}

fn process(page: &mut Page, process: &Process) {
    let thousandths = |ms: u64| format!("{}.{:03}", ms / 1_000, ms % 1_000);
    page.counter("process_cpu_seconds_total", "Processor time of all threads.", thousandths(process.cpu_ms));
    page.gauge(
        "process_resident_memory_bytes",
        "Memory that is there, mapped files included.",
        process.resident_bytes,
    );
    page.gauge(
        "process_virtual_memory_bytes",
        "Address space, reservations included.",
        process.virtual_bytes,
    );
    page.gauge(
        "process_start_time_seconds",
        "When the process began, in seconds since 1970.",
        thousandths(process.started_unix_ms),
    );
    page.gauge("process_open_fds", "Open descriptors.", process.open_files);
    page.gauge("process_max_fds", "As many may be open.", process.open_files_max);
    page.gauge("os_fd_used", "Open descriptors.", process.open_files);
    page.gauge("os_fd_limit", "As many may be open.", process.open_files_max);
}

fn hex(id: MemberId) -> String {
    format!("{id:x}")
}
