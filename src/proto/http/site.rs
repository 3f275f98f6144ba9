//! What all HTTP connections of a process share: which requests are taken, from whom, and how often health was asked
//! for.

use std::cell::Cell;
use std::sync::Arc;

use super::gateway::Gateway;
use super::head::{Head, Method};
use super::health::{Check, Checks, Health, Probe};
use super::response::{Form, Response};
use crate::api::{ETCD_VERSION, VERSION};
use crate::proto::etcd::Counts;
use crate::proto::etcd::methods::Rpc;

/// Which pages a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A port for clients: all of them.
    Clients,
    /// `--listen-metrics-urls`: what monitoring needs. As in etcd neither hosts nor origins are looked at.
    Monitoring,
}

/// Some names, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    All,
    These(Vec<String>),
}

impl Allowed {
    /// From a flag: `*` anywhere in the list allows all, and so does an empty list.
    pub fn from_list<'a>(items: impl Iterator<Item = &'a str>) -> Allowed {
        let items: Vec<String> = items.map(str::to_string).collect();
        let all = items.is_empty() || items.iter().any(|item| item == "*");
        if all { Allowed::All } else { Allowed::These(items) }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Allowed::All => true,
            Allowed::These(names) => names.iter().any(|known| known.eq_ignore_ascii_case(name)),
        }
    }
}

/// Made once, shared by all adapters. Whoever owns the connections is one thread, so counts are plain cells.
#[derive(Debug)]
pub struct Site {
    /// `--host-whitelist`.
    pub hosts: Allowed,
    /// `--cors`.
    pub origins: Allowed,
    /// `--enable-grpc-gateway`.
    pub gateway: Option<Gateway>,
    pub counters: Counters,
    /// Of etcd's API, whatever carried them.
    pub calls: Arc<Counts>,
}

impl Site {
    pub fn new(hosts: Allowed, origins: Allowed) -> Site {
        Site { hosts, origins, gateway: None, counters: Counters::default(), calls: Arc::default() }
    }

    /// The call of etcd's API that a request makes, if it makes one.
    pub(super) fn call(&self, head: &Head, scope: Scope) -> Option<&'static Rpc> {
        let is_let_in = scope == Scope::Clients && self.hosts.has(&head.host);
        if is_let_in && self.gateway.is_some() { Gateway::route(head)?.ok() } else { None }
    }

    /// How a request is answered: at once, or with what the node says. Not for calls of etcd's API.
    pub(super) fn route(&self, head: &Head, scope: Scope) -> Work {
        if scope == Scope::Clients {
            if !self.hosts.has(&head.host) {
                return Work::Ready(misdirected(&head.host));
            }
            if head.method == Method::Options {
                return Work::Ready(Response::text(200, ""));
            }
            if self.gateway.is_some()
                && let Some(Err(refused)) = Gateway::route(head)
            {
                return Work::Ready(refused);
            }
        }
        let Some(work) = page(head, scope) else {
            return Work::Ready(Response::error(404, "404 page not found"));
        };
        if !matches!(head.method, Method::Get | Method::Head) {
            let mut refused = Response::error(405, "Method Not Allowed");
            refused.fields.push(("Allow", "GET, HEAD"));
            return Work::Ready(refused);
        }
        work
    }

    pub(super) fn form(&self, head: &Head, scope: Scope) -> Form {
        let allow_origin = match (scope, &self.origins, &head.origin) {
            (Scope::Monitoring, ..) => None,
            (_, Allowed::All, _) => Some("*".to_string()),
            (_, origins, Some(origin)) if origins.has(origin) => Some(origin.clone()),
            _ => None,
        };
        Form {
            head_only: head.method == Method::Head,
            keep_alive: head.keep_alive,
            http10: head.http10,
            allow_origin,
        }
    }
}

/// What it takes to answer a request.
#[derive(Debug)]
pub(super) enum Work {
    Ready(Response),
    Health(Health),
    Checks(Checks),
    Metrics { asked: bool, text: Option<String> },
}

fn page(head: &Head, scope: Scope) -> Option<Work> {
    let path = head.target.path.as_str();
    match path {
        "/health" => return Some(Work::Health(Health::new(&head.target))),
        "/metrics" => return Some(Work::Metrics { asked: false, text: None }),
        "/version" if scope == Scope::Clients => return Some(Work::Ready(version())),
        _ => {}
    }
    let (probe, rest) = Probe::ALL.into_iter().find_map(|probe| {
        let rest = path.strip_prefix('/')?.strip_prefix(probe.name())?;
        Some((probe, rest))
    })?;
    let only = match rest.strip_prefix('/') {
        None if rest.is_empty() => None,
        None => return None,
        Some(name) => Some(*probe.checks().iter().find(|check| check.name() == name)?),
    };
    Some(Work::Checks(Checks::new(probe, only, &head.target)))
}

/// Clients decide by `etcdserver` which paths there are, and some of them take it apart at the dots: so it is a plain
/// release of etcd, the one whose interface this is.
fn version() -> Response {
    let cluster = ETCD_VERSION.rsplit_once('.').map_or(ETCD_VERSION, |(minor, _)| minor);
    let body = format!(r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{cluster}.0","pawl":"{VERSION}"}}"#);
    Response::new(200, "application/json", body)
}

/// A page of somewhere else whose name was made to mean this machine (DNS rebinding, CVE-2018-5702) names its own host.
fn misdirected(host: &str) -> Response {
    let name = if host.is_empty() { "no name" } else { host };
    Response::error(
        421,
        &format!(
            "This server was addressed as {name}, which is not on the list of --host-whitelist. If that is how it \
             should be called, add the name there."
        ),
    )
}

/// How often health was asked for, and with what result.
#[derive(Debug, Default)]
pub struct Counters {
    healthy: Cell<u64>,
    unhealthy: Cell<u64>,
    /// By probe and check.
    checks: [[CheckCounter; Check::ALL.len()]; Probe::ALL.len()],
}

#[derive(Debug, Default)]
struct CheckCounter {
    good: Cell<u64>,
    bad: Cell<u64>,
    last_was_good: Cell<bool>,
}

/// What came of one check so far.
pub(super) struct CheckCounts {
    pub(super) probe: Probe,
    pub(super) check: Check,
    pub(super) good: u64,
    pub(super) bad: u64,
    pub(super) last_was_good: bool,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Counters {
    pub(super) fn count_health(&self, healthy: bool) {
        count(if healthy { &self.healthy } else { &self.unhealthy });
    }

    pub(super) fn count_check(&self, probe: Probe, check: Check, good: bool) {
        let counter = &self.checks[probe as usize][check as usize];
        count(if good { &counter.good } else { &counter.bad });
        counter.last_was_good.set(good);
    }

    /// Healthy, and not.
    pub(super) fn health(&self) -> (u64, u64) {
        (self.healthy.get(), self.unhealthy.get())
    }

    /// Every check of every probe.
    pub(super) fn checks(&self) -> Vec<CheckCounts> {
        let of_probe = |probe: Probe| {
            probe.checks().iter().map(move |&check| {
                let counter = &self.checks[probe as usize][check as usize];
                let (good, bad) = (counter.good.get(), counter.bad.get());
                CheckCounts { probe, check, good, bad, last_was_good: counter.last_was_good.get() }
            })
        };
        Probe::ALL.into_iter().flat_map(of_probe).collect()
    }
}
