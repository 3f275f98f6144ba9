//! Every flag of the server: ours, and those of etcd 3.4 to 3.7 that people carry over.

use super::flag::{ANY_NUMBER, COUNT, Flag, Group, Kind, applies, ignored, refused};
use super::forms::Form;
use crate::base::limits;

use Kind::{Bool, Duration, Period, Text, Word};

const fn number(min: i64, max: i64) -> Kind {
    Kind::Number { min, max }
}

const fn form(form: Form) -> Kind {
    Kind::Form(form)
}

/// The words of `--log-level`; Go's loggers have two that Rust's have not, both print only what is worse
/// than an error.
pub const LOG_LEVELS: &[&str] = &["debug", "info", "warn", "error", "panic", "fatal"];

const V2_PHASES: &[&str] = &["not-yet", "write-only", "write-only-drop-data", "gone"];

/// In order. Nothing means that the library chooses.
pub const TLS_VERSIONS: &[&str] = &["", "TLS1.2", "TLS1.3"];

const NO_DISCOVERY: &str = "discovery is not available yet, and without it this would be a cluster of its own: use --initial-cluster";

const REQUEST_BYTES_LIMIT: i64 = limits::REQUEST_BYTES_LIMIT as i64;

pub const GROUPS: &[Group] = &[
    Group {
        title: "Member",
        flags: &[
            applies("name", Text, "default", "Name of this member, for people and for --initial-cluster."),
            applies("data-dir", Text, "", "Directory of this member's files (${name}.etcd if not given)."),
            applies(
                "wal-dir",
                Text,
                "",
                "Directory of the log's segments, if they shall be on another disk.",
            ),
            applies(
                "wal-segment-bytes",
                number(64 << 10, 1 << 30),
                "67108864",
                "Bytes of one segment of the log, a multiple of 512.",
            ),
            applies(
                "snapshot-count",
                COUNT,
                "100000",
                "Entries applied between two checkpoints at most (0: the default).",
            ),
            applies(
                "snapshot-catchup-entries",
                COUNT,
                "5000",
                "Entries kept in the log behind the applied index, for followers that lag.",
            ),
            applies("heartbeat-interval", number(1, 50_000), "100", "Milliseconds between heartbeats."),
            applies(
                "election-timeout",
                number(1, 50_000),
                "1000",
                "Milliseconds without a leader before an election; at least 5 heartbeats.",
            ),
            applies("listen-peer-urls", Text, "http://localhost:2380", "Where to listen for other members."),
            applies("listen-client-urls", Text, "http://localhost:2379", "Where to listen for clients."),
            applies(
                "listen-client-http-urls",
                Text,
                "",
                "Where to listen for HTTP alone; the other ports for clients speak none then.",
            ),
            applies(
                "quota-backend-bytes",
                ANY_NUMBER,
                "0",
                "Bytes in use at which puts are refused, until less than 90% are (0: 2 GiB, negative: no quota).",
            ),
            applies("max-txn-ops", number(1, i64::MAX), "128", "Operations in one transaction at most."),
            applies(
                "max-request-bytes",
                number(1, REQUEST_BYTES_LIMIT),
                "1572864",
                "Bytes in one request at most.",
            ),
            ignored("initial-election-tick-advance", Bool, "true", "Hurry the first election."),
            ignored("max-snapshots", COUNT, "5", "Snapshot files to keep."),
            ignored("max-wals", COUNT, "5", "Log files to keep."),
            ignored("memory-mlock", Bool, "false", "Lock the database's pages in memory."),
            ignored("backend-bbolt-freelist-type", Word(&["map", "array"]), "map", "bbolt's free list."),
            ignored("backend-batch-interval", Duration, "0", "Time before bbolt's commit."),
            ignored("backend-batch-limit", COUNT, "0", "Operations before bbolt's commit."),
            applies(
                "max-concurrent-streams",
                number(0, 4_294_967_295),
                "4294967295",
                "Streams on one gRPC connection at most (32768 whatever it says).",
            ),
            applies(
                "grpc-keepalive-interval",
                Duration,
                "2h",
                "A gRPC client that is silent for so long is asked whether it is there (0: never).",
            ),
            applies(
                "grpc-keepalive-timeout",
                Duration,
                "20s",
                "One that does not answer within this is disconnected.",
            ),
            ignored("grpc-keepalive-min-time", Duration, "5s", "Fastest allowed gRPC ping."),
            ignored("socket-reuse-port", Bool, "false", "SO_REUSEPORT on listeners."),
            ignored("socket-reuse-address", Bool, "false", "SO_REUSEADDR on listeners."),
            applies("enable-grpc-gateway", Bool, "true", "etcd's API as JSON over HTTP, under /v3/."),
            ignored("raft-read-timeout", Duration, "5s", "Read timeout between members."),
            ignored("raft-write-timeout", Duration, "5s", "Write timeout between members."),
            ignored("feature-gates", form(Form::FeatureGates), "", "etcd's feature gates."),
        ],
    },
    Group {
        title: "Clustering",
        flags: &[
            applies(
                "initial-advertise-peer-urls",
                Text,
                "http://localhost:2380",
                "Where the other members reach this one.",
            ),
            applies(
                "initial-cluster",
                Text,
                "",
                "The first members, as name=url,... (this member alone if not given).",
            ),
            applies(
                "initial-cluster-state",
                Word(&["new", "existing"]),
                "new",
                "Start a cluster, or join one.",
            ),
            applies(
                "initial-cluster-token",
                Text,
                "etcd-cluster",
                "Tells clusters apart that were started with the same URLs.",
            ),
            applies(
                "advertise-client-urls",
                Text,
                "http://localhost:2379",
                "Where clients reach this member; required with --listen-client-urls.",
            ),
            applies(
                "strict-reconfig-check",
                Bool,
                "true",
                "Refuse membership changes that would lose quorum.",
            ),
            applies(
                "pre-vote",
                Bool,
                "true",
                "Ask before campaigning, so that a member that was away disturbs nobody.",
            ),
            applies(
                "lease-reads",
                Bool,
                "true",
                "Serve linearizable reads under the leader's lease. Off: one round of heartbeats per read, and no trust in clocks.",
            ),
            applies(
                "auto-compaction-retention",
                form(Form::Retention),
                "0",
                "History that is kept when older revisions are compacted automatically; 0: all of it.",
            ),
            applies(
                "auto-compaction-mode",
                Word(&["periodic", "revision"]),
                "periodic",
                "The retention is a time such as 30m, or a number of hours; or a number of revisions.",
            ),
            ignored("v2-deprecation", Word(V2_PHASES), "write-only", "Phase of the old API's end."),
            refused("discovery", Text, "", NO_DISCOVERY),
            refused("discovery-token", Text, "", NO_DISCOVERY),
            refused("discovery-endpoints", Text, "", NO_DISCOVERY),
            refused("discovery-srv", Text, "", NO_DISCOVERY),
            ignored("discovery-srv-name", Text, "", "Suffix of the DNS service name."),
            ignored("discovery-dial-timeout", Duration, "2s", "Discovery."),
            ignored("discovery-request-timeout", Duration, "5s", "Discovery."),
            ignored("discovery-keepalive-time", Duration, "2s", "Discovery."),
            ignored("discovery-keepalive-timeout", Duration, "6s", "Discovery."),
            ignored("discovery-insecure-transport", Bool, "true", "Discovery."),
            ignored("discovery-insecure-skip-tls-verify", Bool, "false", "Discovery."),
            ignored("discovery-cert", Text, "", "Discovery."),
            ignored("discovery-key", Text, "", "Discovery."),
            ignored("discovery-cacert", Text, "", "Discovery."),
            ignored("discovery-user", Text, "", "Discovery."),
            ignored("discovery-password", Text, "", "Discovery."),
            ignored("discovery-fallback", Word(&["exit", "proxy"]), "exit", "Discovery."),
            ignored("discovery-proxy", Text, "", "Discovery."),
        ],
    },
    Group {
        title: "Security",
        flags: &[
            ignored("cert-file", Text, "", "Certificate for clients."),
            ignored("key-file", Text, "", "Its key."),
            ignored("client-cert-file", Text, "", "Certificate for acting as a client."),
            ignored("client-key-file", Text, "", "Its key."),
            ignored("client-cert-auth", Bool, "false", "Require certificates of clients."),
            ignored("client-crl-file", Text, "", "Revoked certificates of clients."),
            ignored("client-cert-allowed-hostname", Text, "", "Names allowed in certificates of clients."),
            ignored("trusted-ca-file", Text, "", "Authority for clients."),
            ignored("auto-tls", Bool, "false", "Self-signed certificate for clients."),
            ignored("peer-cert-file", Text, "", "Certificate for members."),
            ignored("peer-key-file", Text, "", "Its key."),
            ignored("peer-client-cert-file", Text, "", "Certificate for dialling members."),
            ignored("peer-client-key-file", Text, "", "Its key."),
            ignored("peer-client-cert-auth", Bool, "false", "Require certificates of members."),
            ignored("peer-trusted-ca-file", Text, "", "Authority for members."),
            ignored("peer-cert-allowed-cn", Text, "", "Names allowed in certificates of members."),
            ignored("peer-cert-allowed-hostname", Text, "", "Names allowed in certificates of members."),
            ignored("peer-auto-tls", Bool, "false", "Self-signed certificate for members."),
            ignored(
                "peer-skip-client-san-verification",
                Bool,
                "false",
                "Skip a check of members' certificates.",
            ),
            ignored("peer-crl-file", Text, "", "Revoked certificates of members."),
            ignored("self-signed-cert-validity", COUNT, "1", "Years."),
            ignored("cipher-suites", form(Form::CipherSuites), "", "TLS ciphers."),
            ignored("tls-min-version", Word(TLS_VERSIONS), "TLS1.2", "Oldest TLS."),
            ignored("tls-max-version", Word(TLS_VERSIONS), "", "Newest TLS."),
            applies(
                "cors",
                form(Form::Origins),
                "*",
                "Origins whose pages may read what HTTP answers (*: all).",
            ),
            applies("host-whitelist", Text, "*", "Host headers accepted on HTTP (*: all)."),
            ignored("auth-token", form(Form::AuthToken), "simple", "Kind of token."),
            ignored("bcrypt-cost", number(4, 31), "10", "Cost of hashing passwords."),
            ignored("auth-token-ttl", COUNT, "300", "Seconds."),
        ],
    },
    Group {
        title: "Logging and monitoring",
        flags: &[
            applies("log-level", Word(LOG_LEVELS), "info", "debug, info, warn or error."),
            ignored("logger", Word(&["zap", "capnslog"]), "zap", "etcd's logging library."),
            ignored(
                "log-outputs",
                form(Form::LogOutputs),
                "default",
                "Where log lines go (here: standard error).",
            ),
            ignored("log-format", Word(&["json", "console"]), "json", "Form of log lines."),
            ignored("enable-log-rotation", Bool, "false", "Rotate log files."),
            ignored("log-rotation-config-json", Text, "", "How to rotate them."),
            ignored("warning-unary-request-duration", Duration, "300ms", "Slow requests."),
            ignored("enable-pprof", Bool, "false", "Go's profiles over HTTP."),
            ignored("metrics", Word(&["basic", "extensive"]), "basic", "Detail of metrics."),
            applies(
                "listen-metrics-urls",
                Text,
                "",
                "Where to listen for /metrics, /health, /livez and /readyz alone, beside the ports for clients.",
            ),
            ignored("enable-distributed-tracing", Bool, "false", "Tracing."),
            ignored("distributed-tracing-address", Text, "localhost:4317", "Tracing."),
            ignored("distributed-tracing-service-name", Text, "etcd", "Tracing."),
            ignored("distributed-tracing-instance-id", Text, "", "Tracing."),
            ignored("distributed-tracing-sampling-rate", number(0, 1_000_000), "0", "Tracing."),
        ],
    },
    Group {
        title: "Checks and limits",
        flags: &[
            ignored("corrupt-check-time", Duration, "0s", "Time between comparisons of members."),
            ignored("compact-hash-check-time", Period, "1m", "Time between comparisons at compaction."),
            ignored("compaction-batch-limit", COUNT, "1000", "Revisions per slice of compaction."),
            ignored("compaction-sleep-interval", Duration, "10ms", "Pause between slices."),
            applies(
                "watch-progress-notify-interval",
                Duration,
                "10m",
                "Time between progress notices to a quiet watcher.",
            ),
            ignored("warning-apply-duration", Duration, "100ms", "Slow applies."),
            ignored("bootstrap-defrag-threshold-megabytes", COUNT, "0", "Defragment at the start."),
            applies("max-learners", COUNT, "1", "Learners in a cluster at one time."),
            ignored("downgrade-check-time", Duration, "5s", "Downgrades."),
        ],
    },
    Group {
        title: "Unsafe",
        flags: &[
            applies(
                "force-new-cluster",
                Bool,
                "false",
                "Make this member the only one, with the data that it has. For a quorum that is lost for good.",
            ),
            ignored("unsafe-no-fsync", Bool, "false", "Skip fsync (never done here)."),
        ],
    },
    Group {
        title: "Other",
        flags: &[
            refused(
                "config-file",
                Text,
                "",
                "configuration files are not read yet, and without its settings this would be another server: use flags or the environment",
            ),
            applies("version", Bool, "false", "Print the version and exit."),
            applies("help", Bool, "false", "Print this text and exit."),
        ],
    },
];

/// Names that etcd has left behind for another one; they mean the same here.
pub const ALIASES: &[(&str, &str)] = &[
    ("h", "help"),
    ("snapshot-catch-up-entries", "snapshot-catchup-entries"),
    ("experimental-snapshot-catchup-entries", "snapshot-catchup-entries"),
    ("experimental-snapshot-catch-up-entries", "snapshot-catchup-entries"),
    ("experimental-compact-hash-check-time", "compact-hash-check-time"),
    ("experimental-corrupt-check-time", "corrupt-check-time"),
    ("experimental-compaction-batch-limit", "compaction-batch-limit"),
    ("experimental-compaction-sleep-interval", "compaction-sleep-interval"),
    ("experimental-watch-progress-notify-interval", "watch-progress-notify-interval"),
    ("experimental-warning-apply-duration", "warning-apply-duration"),
    ("experimental-warning-unary-request-duration", "warning-unary-request-duration"),
    ("experimental-bootstrap-defrag-threshold-megabytes", "bootstrap-defrag-threshold-megabytes"),
    ("experimental-memory-mlock", "memory-mlock"),
    ("experimental-downgrade-check-time", "downgrade-check-time"),
    ("experimental-peer-skip-client-san-verification", "peer-skip-client-san-verification"),
    ("experimental-enable-distributed-tracing", "enable-distributed-tracing"),
    ("experimental-distributed-tracing-address", "distributed-tracing-address"),
    ("experimental-distributed-tracing-service-name", "distributed-tracing-service-name"),
    ("experimental-distributed-tracing-instance-id", "distributed-tracing-instance-id"),
    ("experimental-distributed-tracing-sampling-rate", "distributed-tracing-sampling-rate"),
    ("experimental-max-learners", "max-learners"),
    ("experimental-backend-bbolt-freelist-type", "backend-bbolt-freelist-type"),
];

/// Flags that etcd itself has removed, made a feature gate of, or ignores. Taken with a warning, never
/// listed.
pub const RETIRED: &[Flag] = &[
    ignored("experimental-initial-corrupt-check", Bool, "false", ""),
    ignored("experimental-compact-hash-check-enabled", Bool, "false", ""),
    ignored("experimental-enable-lease-checkpoint", Bool, "false", ""),
    ignored("experimental-enable-lease-checkpoint-persist", Bool, "false", ""),
    ignored("experimental-txn-mode-write-with-shared-buffer", Bool, "true", ""),
    ignored("experimental-stop-grpc-service-on-defrag", Bool, "false", ""),
    ignored("experimental-set-member-localaddr", Bool, "false", ""),
    ignored("experimental-wait-cluster-ready-timeout", Duration, "5s", ""),
    ignored("experimental-enable-v2v3", Text, "", ""),
    ignored("enable-v2", Bool, "false", ""),
    refused(
        "proxy",
        Word(&["off", "readonly", "on"]),
        "off",
        "there are no proxies of the old API: a start would add a member",
    ),
    ignored("proxy-failure-wait", COUNT, "5000", ""),
    ignored("proxy-refresh-interval", COUNT, "30000", ""),
    ignored("proxy-dial-timeout", COUNT, "1000", ""),
    ignored("proxy-write-timeout", COUNT, "5000", ""),
    ignored("proxy-read-timeout", COUNT, "0", ""),
    ignored("debug", Bool, "false", ""),
    ignored("log-package-levels", Text, "", ""),
    ignored("log-output", Text, "default", ""),
    ignored("cluster-active-size", Text, "", ""),
    ignored("cluster-remove-delay", Text, "", ""),
    ignored("cluster-sync-interval", Text, "", ""),
    ignored("config", Text, "", ""),
    ignored("force", Bool, "false", ""),
    ignored("max-result-buffer", Text, "", ""),
    ignored("max-retry-attempts", Text, "", ""),
    ignored("peer-heartbeat-interval", Text, "", ""),
    ignored("peer-election-timeout", Text, "", ""),
    ignored("retry-interval", Text, "", ""),
    ignored("snapshot", Bool, "false", ""),
    ignored("v", Bool, "false", ""),
    ignored("vv", Bool, "false", ""),
];

/// The flags that `--help` lists.
pub fn listed() -> impl Iterator<Item = &'static Flag> {
    GROUPS.iter().flat_map(|group| group.flags)
}

/// Every flag that can be given, under its own name.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    listed().chain(RETIRED)
}

/// Every name that can be typed or put in the environment, with its flag.
pub fn names() -> impl Iterator<Item = (&'static str, &'static Flag)> {
    let aliases = ALIASES.iter().map(|(alias, name)| {
        (*alias, all().find(|flag| flag.name == *name).expect("an alias names a flag of the table"))
    });
    all().map(|flag| (flag.name, flag)).chain(aliases)
}

/// The flag of a name or an alias.
pub fn find(name: &str) -> Option<&'static Flag> {
    names().find(|(known, _)| *known == name).map(|(_, flag)| flag)
}

#[cfg(test)]
mod tests {
    use super::super::flag::Effect;
    use super::*;

    #[test]
    fn names_are_unique_and_defaults_are_valid() {
        let mut seen = std::collections::BTreeSet::new();
        for (name, flag) in names() {
            assert!(seen.insert(name), "{name} is in the table twice");
            if !flag.default.is_empty() {
                assert_eq!(flag.kind.check(flag.default), Ok(()), "default of {name}");
            }
        }
        for flag in listed() {
            assert!(!flag.help.is_empty(), "{} has no help", flag.name);
        }
    }

    #[test]
    fn every_flag_of_etcd_is_known() {
        for name in include_str!("testdata/etcd-3.5.1-flags.txt").lines() {
            assert!(find(name).is_some(), "etcd 3.5.1 prints --{name} in its help");
        }
        assert!(find("lease-reads").is_some_and(|flag| flag.effect == Effect::Applies));
    }

    /// A flag that does something else here than in etcd, or nothing, is in the page that says so.
    #[test]
    fn the_page_of_flags_knows_them_all() {
        let page = include_str!("../../docs/flags.md");
        let refused = page.split("\n## ").find(|part| part.starts_with("Refused")).expect("a section");
        for flag in all().filter(|flag| flag.effect != Effect::Applies) {
            assert!(page.contains(&format!("`{}`", flag.name)), "docs/flags.md lacks `{}`", flag.name);
            let is_refused = matches!(flag.effect, Effect::Refused(_));
            assert_eq!(refused.contains(&format!("`{}`", flag.name)), is_refused, "{}", flag.name);
        }
        for (alias, _) in ALIASES.iter().filter(|(alias, _)| *alias != "h") {
            assert!(page.contains(&format!("`{alias}`")), "docs/flags.md lacks `{alias}`");
        }
        let etcds = include_str!("testdata/etcd-3.5.1-flags.txt");
        for own in ["wal-segment-bytes", "lease-reads"] {
            assert!(find(own).is_some() && page.contains(&format!("`{own}`")) && !etcds.contains(own));
        }
    }
}
