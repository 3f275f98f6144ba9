//! Values become [`Settings`], or one line that says which two of them do not fit. Pure: nothing has been
//! created or bound when a start is refused, and what must be asked of the machine is handed in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::flag::Effect;
use super::flag_table::{self, TLS_VERSIONS};
use super::url::Url;
use super::values::{Refusal, Values};
use super::{forms, go};
use crate::base::limits;
use crate::base::time::SECOND;
use crate::net::Settings;
use crate::node::{REVISIONS_EVERY, Retention};

/// etcd's default quota, and its bound of the election timeout.
const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;
/// What 0 means.
const SNAPSHOT_COUNT_DEFAULT: u64 = 100_000;
const WATCH_PROGRESS_MS_DEFAULT: u64 = 600_000;
/// Shorter ones are raised to it, as in etcd.
const WATCH_PROGRESS_MS_MIN: u64 = 100;

/// What segments are multiples of: groups of records begin on these borders.
const SECTOR_BYTES: u64 = 512;

/// What the rules ask of the machine that the server starts on.
pub trait Machine {
    /// Whether this machine has one.
    fn ipv6_loopback(&self) -> bool;
    /// Whether a member has been started before with this data directory, and its segments there if not in it.
    fn has_data(&self, data_dir: &Path, wal_dir: Option<&Path>) -> bool;
    /// The addresses behind a name, or a line that says why there are none. Takes as long as the machine allows.
    fn lookup(&mut self, host: &str) -> Result<Vec<IpAddr>, String>;
}

/// Checks `values` against each other.
pub fn settings(values: &mut Values, machine: &mut dyn Machine) -> Result<Settings, Refusal> {
    let ipv6_loopback = machine.ipv6_loopback();
    let name = checked_name(values)?;
    let (heartbeat_interval_ms, election_timeout_ms) = checked_timers(values)?;
    if values.is_given("listen-client-urls") && !values.is_given("advertise-client-urls") {
        return Err(Refusal::value(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ));
    }
    check_tls(values)?;
    check_log_rotation(values)?;
    let listen_client = listen(values, "listen-client-urls", ipv6_loopback)?;
    let listen_peer = listen(values, "listen-peer-urls", ipv6_loopback)?;
    let listen_client_http = listen_if_given(values, "listen-client-http-urls", ipv6_loopback)?;
    let listen_metrics = listen_if_given(values, "listen-metrics-urls", ipv6_loopback)?;
    check_apart(&[
        ("listen-client-urls", &listen_client),
        ("listen-client-http-urls", &listen_client_http),
        ("listen-metrics-urls", &listen_metrics),
        ("listen-peer-urls", &listen_peer),
    ])?;
    let advertise_client = advertise(values, "advertise-client-urls")?;
    let advertise_peer = advertise(values, "initial-advertise-peer-urls")?;
    let wal_dir = Some(values.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let data_dir = data_dir(values, &name);
    let initial_cluster =
        checked_cluster(values, &name, &advertise_peer, machine, &data_dir, wal_dir.as_deref())?;
    // As the cluster spells them, should that differ: the others know this member by those.
    let own = initial_cluster.iter().find(|(member, _)| *member == name);
    let initial_advertise_peer_urls = own.map(|(_, urls)| urls.clone()).unwrap_or_default();
    let texts = |urls: Vec<Url>| urls.into_iter().map(|url| url.text).collect();

    Ok(Settings {
        data_dir,
        wal_dir,
        wal_segment_bytes: checked_segment_bytes(values)?,
        name,
        listen_client,
        listen_client_http,
        listen_metrics,
        host_whitelist: forms::items(values.text("host-whitelist")).map(str::to_string).collect(),
        cors: forms::items(values.text("cors")).map(str::to_string).collect(),
        grpc_gateway: values.bool("enable-grpc-gateway"),
        listen_peer,
        advertise_client_urls: texts(advertise_client),
        initial_advertise_peer_urls,
        initial_cluster,
        initial_cluster_token: values.text("initial-cluster-token").into(),
        join_existing: values.text("initial-cluster-state") == "existing",
        force_new_cluster: values.bool("force-new-cluster"),
        strict_reconfig_check: values.bool("strict-reconfig-check"),
        max_learners: usize::try_from(values.count("max-learners")).unwrap_or(usize::MAX),
        watch_progress_interval_ms: match values.duration_ms("watch-progress-notify-interval") {
            0 => WATCH_PROGRESS_MS_DEFAULT,
            interval => interval.max(WATCH_PROGRESS_MS_MIN),
        },
        heartbeat_interval_ms,
        election_timeout_ms,
        pre_vote: values.bool("pre-vote"),
        lease_reads: values.bool("lease-reads"),
        snapshot_catchup_entries: values.count("snapshot-catchup-entries"),
        snapshot_count: match values.count("snapshot-count") {
            0 => SNAPSHOT_COUNT_DEFAULT,
            count => count,
        },
        quota_backend_bytes: match values.number("quota-backend-bytes") {
            0 => Some(QUOTA_BYTES_DEFAULT),
            quota => u64::try_from(quota).ok(),
        },
        retention: checked_retention(values)?,
        max_request_bytes: usize::try_from(values.count("max-request-bytes")).expect("bounded by the table"),
        max_txn_ops: usize::try_from(values.count("max-txn-ops")).unwrap_or(usize::MAX),
        grpc_streams_max: match u32::try_from(values.count("max-concurrent-streams")).unwrap_or(u32::MAX) {
            0 => u32::MAX,
            streams => streams,
        },
        grpc_ping_every_ms: values.duration_ms("grpc-keepalive-interval"),
        grpc_ping_patience_ms: values.duration_ms("grpc-keepalive-timeout"),
        effective: effective(values),
    })
}

/// A name is also a word of `--initial-cluster`, so it may not contain what separates words there.
fn checked_name(values: &Values) -> Result<String, Refusal> {
    let name = values.text("name");
    if name.is_empty() || name.contains([',', '=']) || name.contains(char::is_control) {
        let source = values.source("name");
        return Err(Refusal::value(format!(
            "{source}: expected a name without commas and equal signs, found {name:?}"
        )));
    }
    Ok(name.into())
}

fn checked_timers(values: &Values) -> Result<(u64, u64), Refusal> {
    let heartbeat = values.count("heartbeat-interval");
    let election = values.count("election-timeout");
    if 5 * heartbeat > election {
        return Err(Refusal::value(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        )));
    }
    assert!(election <= ELECTION_TIMEOUT_MS_MAX, "the table bounds --election-timeout");
    Ok((heartbeat, election))
}

fn checked_segment_bytes(values: &Values) -> Result<u64, Refusal> {
    let bytes = values.count("wal-segment-bytes");
    if !bytes.is_multiple_of(SECTOR_BYTES) {
        let source = values.source("wal-segment-bytes");
        return Err(Refusal::value(format!(
            "{source}: expected a multiple of {SECTOR_BYTES}, found \"{bytes}\""
        )));
    }
    Ok(bytes)
}

/// etcd's: a number is hours or revisions, as the mode says. etcd takes a time for revisions, too, and means its
/// nanoseconds: so many that nothing is ever compacted.
fn checked_retention(values: &Values) -> Result<Option<Retention>, Refusal> {
    let text = values.text("auto-compaction-retention");
    let by_revision = values.text("auto-compaction-mode") == "revision";
    let retention = match text.parse::<u64>() {
        Ok(0) => return Ok(None),
        _ if text.is_empty() => return Ok(None),
        Ok(count) if by_revision => Some(Retention::Revisions { count, every: REVISIONS_EVERY }),
        Ok(hours) => hours.checked_mul(3_600 * SECOND).map(Retention::Time),
        Err(_) if by_revision => None,
        Err(_) => go::parse_duration(text).map(Retention::Time),
    };
    let kept = if by_revision { "a number of revisions" } else { "a shorter time" };
    let refusal = || {
        let source = values.source("auto-compaction-retention");
        Refusal::value(format!("{source}: expected {kept}, found {text:?}"))
    };
    let retention = retention.ok_or_else(refusal)?;
    Ok((retention != Retention::Time(0)).then_some(retention))
}

/// TLS itself is not there yet; settings of it that no server could follow are refused all the same.
fn check_tls(values: &Values) -> Result<(), Refusal> {
    let (oldest, newest) = (values.text("tls-min-version"), values.text("tls-max-version"));
    let rank = |version: &str| TLS_VERSIONS.iter().position(|known| *known == version);
    if !newest.is_empty() && rank(oldest) > rank(newest) {
        return Err(Refusal::value(format!(
            "{}: {oldest} is above {}={newest}",
            values.source("tls-min-version"),
            values.source("tls-max-version")
        )));
    }
    if oldest == "TLS1.3" && !values.text("cipher-suites").is_empty() {
        return Err(Refusal::value(format!(
            "{}: TLS1.3 leaves no choice of ciphers: expected it without {}",
            values.source("cipher-suites"),
            values.source("tls-min-version")
        )));
    }
    Ok(())
}

/// etcd reads the configuration of rotation only where it is switched on.
fn check_log_rotation(values: &Values) -> Result<(), Refusal> {
    if !values.bool("enable-log-rotation") {
        return Ok(());
    }
    let outputs: Vec<&str> = forms::items(values.text("log-outputs")).collect();
    if !matches!(outputs.as_slice(), [file] if !["default", "stdout", "stderr"].contains(file)) {
        return Err(Refusal::value(format!(
            "{}: expected a single file to rotate, found {:?}",
            values.source("log-outputs"),
            values.text("log-outputs")
        )));
    }
    let config = values.text("log-rotation-config-json");
    if config.is_empty() {
        return Ok(());
    }
    forms::check_rotation(config).map_err(|expected| {
        let source = values.source("log-rotation-config-json");
        Refusal::value(format!("{source}: expected {expected}, found {config:?}"))
    })
}

fn urls(values: &Values, flag: &str) -> Result<Vec<Url>, Refusal> {
    Url::parse_list(values.text(flag))
        .map_err(|why| Refusal::value(format!("{}: {why}", values.source(flag))))
}

fn listen(values: &Values, flag: &str, ipv6_loopback: bool) -> Result<Vec<SocketAddr>, Refusal> {
    let mut addresses = Vec::new();
    for url in urls(values, flag)? {
        let found = url
            .listen_addresses(ipv6_loopback)
            .map_err(|why| Refusal::value(format!("{}: {why}", values.source(flag))))?;
        // `http://localhost:1,http://[::1]:1` names one address twice without repeating itself.
        addresses
            .extend(found.into_iter().filter(|address| !addresses.contains(address)).collect::<Vec<_>>());
    }
    Ok(addresses)
}

/// The same of a flag that asks for nothing where it is empty.
fn listen_if_given(values: &Values, flag: &str, ipv6_loopback: bool) -> Result<Vec<SocketAddr>, Refusal> {
    if values.text(flag).is_empty() { Ok(Vec::new()) } else { listen(values, flag, ipv6_loopback) }
}

/// No two flags may name the same place.
fn check_apart(flags: &[(&str, &[SocketAddr])]) -> Result<(), Refusal> {
    for (at, (flag, addresses)) in flags.iter().enumerate() {
        for (other, others) in &flags[at + 1..] {
            let both = addresses.iter().find(|address| address.port() != 0 && others.contains(address));
            if let Some(both) = both {
                return Err(Refusal::value(format!(
                    "--{flag} and --{other} both listen on {both}: expected different ports"
                )));
            }
        }
    }
    Ok(())
}

/// What others are told must be somewhere that they can go to.
fn advertise(values: &mut Values, flag: &str) -> Result<Vec<Url>, Refusal> {
    let urls = urls(values, flag)?;
    for url in &urls {
        if url.port == 0 {
            return Err(Refusal::value(format!(
                "{}: {url}: nobody can connect to port 0",
                values.source(flag)
            )));
        }
        if url.is_unspecified() {
            let warning = format!("{}: {url} cannot be reached from another machine", values.source(flag));
            values.warnings.push(warning);
        }
    }
    Ok(urls)
}

/// The initial members by name. This member must be among them under the URLs that it advertises, or its
/// id would differ from the one that the others compute for it.
fn checked_cluster(
    values: &Values,
    name: &str,
    advertise_peer: &[Url],
    machine: &mut dyn Machine,
    data_dir: &Path,
    wal_dir: Option<&Path>,
) -> Result<Vec<(String, Vec<String>)>, Refusal> {
    let text = values.text("initial-cluster");
    let source = values.source("initial-cluster");
    let refuse = |why: String| Err(Refusal::value(format!("{source}: {why}")));
    if text.is_empty() {
        let urls = advertise_peer.iter().map(|url| url.text.clone()).collect();
        return Ok(vec![(name.into(), urls)]);
    }
    let members = match parse_cluster(text) {
        Ok(members) => members,
        Err(why) => return refuse(why),
    };
    if members.len() > limits::MEMBERS_MAX {
        return refuse(format!("{} members: expected at most {}", members.len(), limits::MEMBERS_MAX));
    }
    let Some((_, own)) = members.iter().find(|(member, _)| member == name) else {
        let names: Vec<&str> = members.iter().map(|(member, _)| member.as_str()).collect();
        return refuse(format!("couldn't find local name {name:?} among {}", names.join(", ")));
    };
    let differ = match Difference::between(own, advertise_peer) {
        None => None,
        Some(Difference::Addresses) => Some(String::new()),
        // A member that has started before is what it has been, whatever a name means today, and no name service
        // may keep it from coming back.
        Some(Difference::Names) if machine.has_data(data_dir, wal_dir) => None,
        Some(Difference::Names) => lookup_difference(own, advertise_peer, machine),
    };
    if let Some(why) = differ {
        let list = |urls: &[Url]| urls.iter().map(|url| url.text.as_str()).collect::<Vec<_>>().join(",");
        return refuse(format!(
            "{name}={} does not match --initial-advertise-peer-urls={}{why}",
            list(own),
            list(advertise_peer)
        ));
    }
    Ok(members
        .into_iter()
        .map(|(member, urls)| (member, urls.into_iter().map(|url| url.text).collect()))
        .collect())
}

/// How two lists of URLs differ as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    /// In addresses alone: nothing can make them equal.
    Addresses,
    /// Names are involved, which may mean the same.
    Names,
}

impl Difference {
    fn between(a: &[Url], b: &[Url]) -> Option<Difference> {
        let covers = |a: &[Url], b: &[Url]| b.iter().all(|url| a.iter().any(|other| other.same_place(url)));
        if covers(a, b) && covers(b, a) {
            return None;
        }
        let is_name = |url: &Url| url.host != "localhost" && url.host.parse::<IpAddr>().is_err();
        Some(if a.iter().chain(b).any(is_name) { Difference::Names } else { Difference::Addresses })
    }
}

/// Compares what the URLs mean; None if that is the same, else a clause that says what was found. Two of them are
/// one place if they have the port and an address in common: of a name with several addresses, which one comes
/// first differs from answer to answer.
fn lookup_difference(a: &[Url], b: &[Url], machine: &mut dyn Machine) -> Option<String> {
    let mut found = Vec::new();
    let mut resolve = |urls: &[Url]| -> Result<Vec<(u16, Vec<IpAddr>)>, String> {
        let mut places = Vec::new();
        for Url { host, port, .. } in urls {
            let addresses = match host.parse() {
                Ok(address) => vec![address],
                Err(_) if host == "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                Err(_) => {
                    let addresses = machine.lookup(host)?;
                    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
                    found.push(format!("{host} is {}", texts.join(" and ")));
                    addresses
                }
            };
            places.push((*port, addresses));
        }
        Ok(places)
    };
    let (a, b) = match resolve(a).and_then(|a| Ok((a, resolve(b)?))) {
        Ok(both) => both,
        Err(why) => return Some(format!(": {why}")),
    };
    let same = |(port, addresses): &(u16, Vec<IpAddr>), (other_port, others): &(u16, Vec<IpAddr>)| {
        port == other_port && addresses.iter().any(|address| others.contains(address))
    };
    let covered =
        a.iter().all(|a| b.iter().any(|b| same(a, b))) && b.iter().all(|b| a.iter().any(|a| same(a, b)));
    (!covered).then(|| format!(": {}", found.join(", ")))
}

/// `name=url` pairs; a member with two URLs is there twice. Sorted by name.
fn parse_cluster(text: &str) -> Result<Vec<(String, Vec<Url>)>, String> {
    let mut members: Vec<(String, Vec<Url>)> = Vec::new();
    for pair in text.split(',') {
        let Some((name, url)) = pair.trim().split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(format!("expected name=url pairs, found {pair:?}"));
        };
        let url = Url::parse(url)?;
        for (other, urls) in &members {
            if urls.iter().any(|known| known.same_place(&url)) {
                return Err(format!("{url} belongs to {other} and to {name}"));
            }
        }
        match members.iter_mut().find(|(member, _)| member == name) {
            Some((_, urls)) => urls.push(url),
            None => members.push((name.into(), vec![url])),
        }
    }
    members.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(members)
}

/// etcd's default, because whoever puts Pawl in etcd's place expects it there.
fn data_dir(values: &mut Values, name: &str) -> PathBuf {
    let given = values.text("data-dir");
    if !given.is_empty() {
        return given.into();
    }
    let default = format!("{name}.etcd");
    values.warnings.push(format!("--data-dir is not set: using {default} in the working directory"));
    default.into()
}

fn effective(values: &Values) -> Vec<(String, String)> {
    flag_table::listed()
        .filter(|flag| flag.effect == Effect::Applies && !matches!(flag.name, "help" | "version"))
        .map(|flag| (flag.name.to_owned(), values.text(flag.name).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use super::*;

    /// Knows three names, and counts how often it is asked for any.
    #[derive(Default)]
    struct Told {
        has_data: bool,
        lookups: usize,
    }

    impl Machine for Told {
        fn ipv6_loopback(&self) -> bool {
            false
        }

        fn has_data(&self, _: &Path, _: Option<&Path>) -> bool {
            self.has_data
        }

        fn lookup(&mut self, host: &str) -> Result<Vec<IpAddr>, String> {
            self.lookups += 1;
            let addresses: &[&str] = match host {
                "one" => &["10.0.0.1"],
                "both" => &["10.0.0.2", "10.0.0.1", "fd00::1"],
                "two" => &["10.0.0.2"],
                _ => return Err(format!("cannot resolve {host:?} within 30s: no such name")),
            };
            Ok(addresses.iter().map(|address| address.parse().unwrap()).collect())
        }
    }

    fn check_on(machine: &mut Told, words: &str) -> Result<(Settings, Vec<String>), Refusal> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let mut values = Values::read(&words, &BTreeMap::new())?;
        let settings = settings(&mut values, machine)?;
        Ok((settings, values.warnings))
    }

    fn check(words: &str) -> Result<(Settings, Vec<String>), Refusal> {
        check_on(&mut Told::default(), words)
    }

    fn complaint(words: &str) -> String {
        let refusal = check(words).unwrap_err();
        assert_eq!(refusal.exit, 1, "{words}");
        assert!(!refusal.line.contains('\n'), "one line: {:?}", refusal.line);
        refusal.line
    }

    #[test]
    fn the_defaults_are_etcds() {
        let (settings, warnings) = check("").unwrap();
        assert_eq!(settings.name, "default");
        assert_eq!(settings.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(settings.listen_client, ["127.0.0.1:2379".parse().unwrap()]);
        assert_eq!(settings.listen_peer, ["127.0.0.1:2380".parse().unwrap()]);
        assert_eq!(settings.initial_cluster, [("default".into(), vec!["http://localhost:2380".into()])]);
        assert_eq!((settings.heartbeat_interval_ms, settings.election_timeout_ms), (100, 1000));
        assert_eq!(settings.quota_backend_bytes, Some(2 << 30));
        assert!(settings.pre_vote && settings.lease_reads && !settings.join_existing);
        assert_eq!(settings.retention, None);
        assert_eq!(warnings, ["--data-dir is not set: using default.etcd in the working directory"]);
        assert!(settings.effective.contains(&("snapshot-count".into(), "100000".into())));
        assert!(!settings.effective.iter().any(|(name, _)| name == "max-wals"));
    }

    #[test]
    fn a_member_of_three() {
        let (settings, warnings) = check(
            "--name n2 --data-dir /d --wal-dir=/w --initial-cluster n3=http://c:2380,n1=http://a:2380,n2=http://127.0.0.1:2380 \
             --initial-advertise-peer-urls http://localhost:2380 --listen-client-urls http://0.0.0.0:1 \
             --advertise-client-urls http://b:1 --quota-backend-bytes=-1 --lease-reads=false",
        )
        .unwrap();
        let names: Vec<&str> = settings.initial_cluster.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["n1", "n2", "n3"]);
        assert_eq!(settings.wal_dir, Some(PathBuf::from("/w")));
        assert_eq!(settings.quota_backend_bytes, None);
        assert!(!settings.lease_reads);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn how_much_history_is_kept() {
        let retention = |words: &str| check(words).unwrap().0.retention;
        let hours = |hours: u64| Some(Retention::Time(hours * 3_600 * SECOND));
        assert_eq!(retention("--auto-compaction-retention=0"), None);
        assert_eq!(retention("--auto-compaction-retention=0s"), None);
        assert_eq!(retention("--auto-compaction-retention="), None);
        assert_eq!(retention("--auto-compaction-retention=5"), hours(5));
        assert_eq!(retention("--auto-compaction-retention=72h"), hours(72));
        assert_eq!(retention("--auto-compaction-retention=90s"), Some(Retention::Time(90 * SECOND)));
        let by_revision = "--auto-compaction-mode=revision --auto-compaction-retention";
        let kept = Retention::Revisions { count: 1000, every: REVISIONS_EVERY };
        assert_eq!(retention(&format!("{by_revision}=1000")), Some(kept));
        assert_eq!(retention(&format!("{by_revision}=0")), None);
        assert_eq!(
            complaint(&format!("{by_revision}=1h")),
            "--auto-compaction-retention: expected a number of revisions, found \"1h\""
        );
        assert_eq!(
            complaint("--auto-compaction-retention=9999999999"),
            "--auto-compaction-retention: expected a shorter time, found \"9999999999\""
        );
        for bad in ["-1", "-5m", "5x", "1.5", "1hx", "0x10", "18446744073709551616", "many"] {
            for mode in ["periodic", "revision"] {
                let words = format!("--auto-compaction-mode={mode} --auto-compaction-retention={bad}");
                let said = complaint(&words);
                assert!(
                    said.contains("--auto-compaction-retention") && said.contains("expected"),
                    "{words}: {said}"
                );
            }
        }
        assert!(complaint("--auto-compaction-mode=hourly").contains("periodic"));
        assert!(complaint("--quota-backend-bytes=2GB").contains("--quota-backend-bytes"));
        assert!(complaint("--quota-backend-bytes=9223372036854775808").contains("--quota-backend-bytes"));
    }

    /// A name alone makes a cluster of its own, as in etcd.
    #[test]
    fn a_single_member_needs_no_cluster_flag() {
        let (settings, _) = check("--name s1 --initial-advertise-peer-urls http://h:1,http://h:2").unwrap();
        assert_eq!(settings.initial_cluster, [("s1".into(), vec!["http://h:1".into(), "http://h:2".into()])]);
    }

    #[test]
    fn values_that_do_not_fit() {
        let cases = [
            (
                "--election-timeout 499",
                "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]",
            ),
            (
                "--heartbeat-interval 201",
                "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[201ms]",
            ),
            (
                "--election-timeout 50001",
                "--election-timeout: expected a number from 1 to 50000, found \"50001\"",
            ),
            (
                "--listen-client-urls http://127.0.0.1:1",
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            ),
            (
                "--listen-peer-urls http://example.com:1",
                "--listen-peer-urls: expected an IP address or localhost in a URL to listen on, found http://example.com:1",
            ),
            (
                "--listen-peer-urls https://127.0.0.1:1",
                "--listen-peer-urls: https://127.0.0.1:1: TLS is not available yet: use http://",
            ),
            (
                "--listen-peer-urls http://127.0.0.1:1,http://localhost:1",
                "--listen-peer-urls: http://localhost:1 is there twice",
            ),
            (
                "--listen-peer-urls http://127.0.0.1:2379",
                "--listen-client-urls and --listen-peer-urls both listen on 127.0.0.1:2379: expected different ports",
            ),
            (
                "--listen-metrics-urls http://127.0.0.1:2380",
                "--listen-metrics-urls and --listen-peer-urls both listen on 127.0.0.1:2380: expected different ports",
            ),
            (
                "--listen-client-http-urls https://127.0.0.1:1",
                "--listen-client-http-urls: https://127.0.0.1:1: TLS is not available yet: use http://",
            ),
            (
                "--listen-client-http-urls http://h:1",
                "--listen-client-http-urls: expected an IP address or localhost in a URL to listen on, found http://h:1",
            ),
            (
                "--listen-metrics-urls foo",
                "--listen-metrics-urls: \"foo\" has no scheme: expected http://host:port",
            ),
            ("--listen-peer-urls=", "--listen-peer-urls: \"\" has no scheme: expected http://host:port"),
            (
                "--initial-cluster n1=http://a:1",
                "--initial-cluster: couldn't find local name \"default\" among n1",
            ),
            (
                "--initial-cluster default=http://a:1",
                "--initial-cluster: default=http://a:1 does not match --initial-advertise-peer-urls=http://localhost:2380: cannot resolve \"a\" within 30s: no such name",
            ),
            (
                "--initial-cluster default=http://10.0.0.1:1",
                "--initial-cluster: default=http://10.0.0.1:1 does not match --initial-advertise-peer-urls=http://localhost:2380",
            ),
            (
                "--initial-cluster default=http://localhost:2380,b=http://127.0.0.1:2380",
                "--initial-cluster: http://127.0.0.1:2380 belongs to default and to b",
            ),
            (
                "--initial-cluster http://a:1",
                "--initial-cluster: expected name=url pairs, found \"http://a:1\"",
            ),
            (
                "--initial-cluster =http://a:1",
                "--initial-cluster: expected name=url pairs, found \"=http://a:1\"",
            ),
            ("--name a,b", "--name: expected a name without commas and equal signs, found \"a,b\""),
            ("--name=", "--name: expected a name without commas and equal signs, found \"\""),
            (
                "--advertise-client-urls http://a:0",
                "--advertise-client-urls: http://a:0: nobody can connect to port 0",
            ),
            ("--wal-segment-bytes 65537", "--wal-segment-bytes: expected a multiple of 512, found \"65537\""),
            (
                "--wal-segment-bytes 65535",
                "--wal-segment-bytes: expected a number from 65536 to 1073741824, found \"65535\"",
            ),
            (
                "--max-request-bytes 67108865",
                "--max-request-bytes: expected a number from 1 to 67108864, found \"67108865\"",
            ),
            (
                "--discovery-srv example.com",
                "--discovery-srv: discovery is not available yet, and without it this would be a cluster of its own: use --initial-cluster",
            ),
        ];
        for (words, line) in cases {
            assert_eq!(complaint(words), line, "{words}");
        }
    }

    #[test]
    fn an_unreachable_advertisement_is_warned_of() {
        let (_, warnings) = check("--data-dir d --advertise-client-urls http://0.0.0.0:2379").unwrap();
        assert_eq!(
            warnings,
            ["--advertise-client-urls: http://0.0.0.0:2379 cannot be reached from another machine"]
        );
    }

    /// Names are looked up where the texts differ, and only there.
    #[test]
    fn own_urls_match_by_what_their_names_mean() {
        let ask = |has_data, advertise: &str, cluster: &str| {
            let mut machine = Told { has_data, lookups: 0 };
            let words = format!("--initial-advertise-peer-urls {advertise} --initial-cluster {cluster}");
            let line = match check_on(&mut machine, &words) {
                Ok((settings, _)) => settings.initial_advertise_peer_urls.join(","),
                Err(refusal) => refusal.line,
            };
            (line, machine.lookups)
        };
        let refused = |own: &str, advertised: &str, why: &str| {
            format!(
                "--initial-cluster: default={own} does not match --initial-advertise-peer-urls={advertised}{why}"
            )
        };
        // What comes out is the cluster's spelling.
        for (advertise, cluster, lookups) in [
            ("http://one:1", "default=http://one:1", 0),
            ("http://one:1", "default=http://ONE:1", 0),
            ("http://one:1", "default=http://10.0.0.1:1", 1),
            ("http://10.0.0.1:1", "default=http://one:1", 1),
            ("http://both:1", "default=http://one:1", 2),
            ("http://both:1", "default=http://[fd00::1]:1", 1),
            ("http://one:1,http://two:2", "default=http://10.0.0.2:2,default=http://10.0.0.1:1", 2),
        ] {
            let expected = cluster.replace("default=", "");
            assert_eq!(ask(false, advertise, cluster), (expected, lookups), "{advertise} {cluster}");
        }
        for (advertise, own, why, lookups) in [
            ("http://two:1", "http://10.0.0.1:1", ": two is 10.0.0.2", 1),
            ("http://one:1", "http://10.0.0.1:2", ": one is 10.0.0.1", 1),
            (
                "http://one:1",
                "http://both:2",
                ": both is 10.0.0.2 and 10.0.0.1 and fd00::1, one is 10.0.0.1",
                2,
            ),
            ("http://one:1,http://two:1", "http://10.0.0.1:1", ": one is 10.0.0.1, two is 10.0.0.2", 2),
            ("http://three:1", "http://10.0.0.1:1", ": cannot resolve \"three\" within 30s: no such name", 1),
            ("http://10.0.0.2:1", "http://10.0.0.1:1", "", 0),
        ] {
            let cluster = format!("default={own}");
            assert_eq!(
                ask(false, advertise, &cluster),
                (refused(own, advertise, why), lookups),
                "{advertise} {own}"
            );
        }
        // A member that has been started before needs no name service.
        assert_eq!(ask(true, "http://three:1", "default=http://10.0.0.1:1"), ("http://10.0.0.1:1".into(), 0));
    }

    /// One good and one bad value of each flag that is not free text; of numbers and words, a bad one.
    #[test]
    fn every_checked_flag_refuses_what_it_cannot_be() {
        use super::super::flag::Kind;
        const RETENTION: &str = "a duration such as 30m, or a number of hours or of revisions";
        const METHODS: &str = "jwt with sign-method= and one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, \
                               ES384, ES512, HS256, HS384, HS512";
        // Without an expectation: a good value.
        let forms = [
            ("cors", "*", ""),
            ("cors", "", ""),
            ("cors", "https://a.example:1,http://b:2", ""),
            ("cors", "http://a:1/x", "URLs: http://a:1/x must not contain a path: expected http://host:port"),
            ("auth-token", "simple", ""),
            ("auth-token", "", ""),
            ("auth-token", "jwt,pub-key=p,priv-key=k,sign-method=RS256,ttl=5m", ""),
            ("auth-token", "foo", "simple or jwt,option=value,..."),
            ("auth-token", "simple,x", "options of the form name=value, each once, and \"x\" is none"),
            (
                "auth-token",
                "jwt,ttl=1s,ttl=2s",
                "options of the form name=value, each once, and \"ttl=2s\" is none",
            ),
            ("auth-token", "jwt,pub-key=p,sign-method=none", METHODS),
            ("auth-token", "jwt,sign-method=HS256", "jwt with pub-key= or priv-key= and a file"),
            (
                "auth-token",
                "jwt,pub-key=p,sign-method=ES256,ttl=5",
                "jwt with ttl= and a duration such as 5m",
            ),
            ("auto-compaction-retention", "", ""),
            ("auto-compaction-retention", "0", ""),
            ("auto-compaction-retention", "5", ""),
            ("auto-compaction-retention", "1h30m", ""),
            ("auto-compaction-retention", "abc", RETENTION),
            ("auto-compaction-retention", "-5", RETENTION),
            ("feature-gates", "", ""),
            ("feature-gates", "InitialCorruptCheck=true,CompactHashCheck=0", ""),
            ("feature-gates", "LeaseCheckpoint=true,LeaseCheckpointPersist=true", ""),
            ("feature-gates", "Foo=true", "feature gates of etcd, and \"Foo\" is none"),
            (
                "feature-gates",
                "LeaseCheckpoint",
                "Gate=true or Gate=false, and \"LeaseCheckpoint\" is neither",
            ),
            ("feature-gates", "LeaseCheckpoint=yes", "LeaseCheckpoint=true or LeaseCheckpoint=false"),
            (
                "feature-gates",
                "LeaseCheckpointPersist=true",
                "LeaseCheckpoint=true beside LeaseCheckpointPersist=true",
            ),
            ("cipher-suites", "", ""),
            ("cipher-suites", "TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_256_CBC_SHA", ""),
            ("cipher-suites", "foo", "names of TLS cipher suites, and \"foo\" is none"),
            ("log-outputs", "default", ""),
            ("log-outputs", "stdout,/var/log/x", ""),
            ("log-outputs", "", "default, stdout, stderr or files"),
            ("log-outputs", "stdout,default", "default alone, or other outputs"),
            ("log-outputs", "stdout,", "no empty output in the list"),
        ];
        for (flag, value, expected) in forms {
            let words = format!("--{flag}={value}");
            if expected.is_empty() {
                assert!(check(&words).is_ok(), "{words}");
            } else {
                assert_eq!(complaint(&words), format!("--{flag}: expected {expected}, found {value:?}"));
            }
        }
        for flag in flag_table::all() {
            let bad: &[&str] = match flag.kind {
                Kind::Bool => &["maybe"],
                Kind::Number { .. } => &["x", "1.5", "99999999999999999999"],
                Kind::Duration => &["x", "5", "-1s"],
                Kind::Period => &["x", "5", "0", "0s"],
                Kind::Word(_) => &["foo"],
                Kind::Form(_) => {
                    assert!(
                        forms.iter().any(|(tested, ..)| *tested == flag.name),
                        "{} has no row",
                        flag.name
                    );
                    &[]
                }
                Kind::Text => &[],
            };
            for value in bad {
                let line = complaint(&format!("--{}={value}", flag.name));
                assert!(line.starts_with(&format!("--{}: expected ", flag.name)), "{line}");
                assert!(line.ends_with(&format!(", found {value:?}")), "{line}");
            }
        }
    }

    /// Words and numbers that etcd has rules for, and values that are good one by one.
    #[test]
    fn rules_of_etcd_for_what_has_no_effect_here() {
        const ROTATION: &str = "a JSON object such as {\"maxsize\": 100, \"compress\": false}";
        for (words, line) in [
            ("--tls-min-version TLS9", "--tls-min-version: expected one of TLS1.2, TLS1.3, found \"TLS9\""),
            (
                "--tls-min-version TLS1.3 --tls-max-version TLS1.2",
                "--tls-min-version: TLS1.3 is above --tls-max-version=TLS1.2",
            ),
            (
                "--tls-min-version TLS1.3 --cipher-suites TLS_AES_128_GCM_SHA256",
                "--cipher-suites: TLS1.3 leaves no choice of ciphers: expected it without --tls-min-version",
            ),
            (
                "--compact-hash-check-time 0s",
                "--compact-hash-check-time: expected a duration above 0 such as 100ms or 1m30s, found \"0s\"",
            ),
            (
                "--experimental-compact-hash-check-time 0s",
                "--experimental-compact-hash-check-time: expected a duration above 0 such as 100ms or 1m30s, found \"0s\"",
            ),
            (
                "--v2-deprecation foo",
                "--v2-deprecation: expected one of not-yet, write-only, write-only-drop-data, gone, found \"foo\"",
            ),
            (
                "--log-outputs stdout --enable-log-rotation",
                "--log-outputs: expected a single file to rotate, found \"stdout\"",
            ),
            (
                "--log-outputs a,b --enable-log-rotation",
                "--log-outputs: expected a single file to rotate, found \"a,b\"",
            ),
            (
                "--log-outputs a --enable-log-rotation --log-rotation-config-json foo",
                &format!("--log-rotation-config-json: expected {ROTATION}, found \"foo\""),
            ),
            (
                "--log-outputs a --enable-log-rotation --log-rotation-config-json={\"maxage\":\"x\"}",
                &format!(
                    "--log-rotation-config-json: expected {ROTATION}, and \"\\\"x\\\"\" cannot be maxage, found {:?}",
                    "{\"maxage\":\"x\"}"
                ),
            ),
            ("--proxy on", "--proxy: there are no proxies of the old API: a start would add a member"),
        ] {
            assert_eq!(complaint(words), line, "{words}");
        }
        for words in [
            "--tls-min-version=TLS1.2 --tls-max-version=TLS1.3 --cipher-suites=TLS_AES_128_GCM_SHA256",
            "--tls-min-version=TLS1.3 --tls-max-version=",
            "--log-outputs=a --enable-log-rotation --log-rotation-config-json={\"maxsize\":1,\"compress\":true}",
            "--log-rotation-config-json=unread",
            "--proxy=off",
        ] {
            assert!(check(words).is_ok(), "{words}");
        }
        assert_eq!(check("--snapshot-count 0").unwrap().0.snapshot_count, 100_000);
    }
}
