//! Where a peer may be found: its URLs, and what the names in them meant when they were last looked up.
//!
//! A name service that hangs is most likely to do so when a machine is away, which is when members must find each
//! other. So dialling never waits for a lookup as long as any address is known: the last good answer stays in
//! use until there is a better one, and a failed lookup takes nothing away. One lookup per peer is under way
//! at a time, and the next one waits a while, because a resolver that is in trouble is not helped by being asked more.

use std::net::SocketAddr;

use super::url;
use crate::base::Mono;
use crate::base::time::{MS, Nanos, SECOND};

/// Between the answer to a lookup and the next one: doubling, until the peer is reached.
const LOOK_AGAIN_FIRST: Nanos = 500 * MS;
const LOOK_AGAIN_LONGEST: Nanos = 2 * SECOND;

/// Addresses taken from one answer. A name with more than that is no member's.
const ADDRESSES_MAX: usize = 32;

pub(super) struct Whereabouts {
    hosts: Vec<Host>,
    /// Which of all addresses is dialled, modulo their number.
    turn: usize,
    /// Which of the names is looked up next, modulo their number.
    name_turn: usize,
    /// The name that is being looked up.
    asked: Option<String>,
    look_at: Mono,
    pause: Nanos,
}

struct Host {
    /// `host:port`.
    text: String,
    is_name: bool,
    /// Of a name: as last heard.
    addresses: Vec<SocketAddr>,
}

impl Host {
    fn new(text: &str) -> Host {
        let addresses: Vec<SocketAddr> = url::literal(text).into_iter().collect();
        Host { text: text.into(), is_name: addresses.is_empty(), addresses }
    }
}

impl Whereabouts {
    pub(super) fn new(urls: &[String]) -> Whereabouts {
        let hosts = hosts_of(urls).map(Host::new).collect();
        Whereabouts { hosts, turn: 0, name_turn: 0, asked: None, look_at: Mono(0), pause: LOOK_AGAIN_FIRST }
    }

    /// The peer's URLs are these now. True if they were others before. A lookup that is under way still counts as
    /// the one that may be.
    pub(super) fn replace(&mut self, urls: &[String]) -> bool {
        if self.hosts.iter().map(|host| host.text.as_str()).eq(hosts_of(urls)) {
            return false;
        }
        let asked = self.asked.take();
        *self = Whereabouts { asked, ..Whereabouts::new(urls) };
        true
    }

    /// For log lines.
    pub(super) fn shown(&self) -> String {
        self.hosts.iter().map(|host| host.text.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The address to dial; None while none is known.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let known = || self.hosts.iter().flat_map(|host| &host.addresses).copied();
        let count = known().count();
        if count == 0 { None } else { known().nth(self.turn % count) }
    }

    /// The peer was not there: another address is next. A name may have one in each family, of which only one is
    /// routed, or one in each of a machine's networks.
    pub(super) fn pass_over(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// The peer was there.
    pub(super) fn reached(&mut self) {
        self.pause = LOOK_AGAIN_FIRST;
    }

    /// When [`look_up`](Self::look_up) has something to say.
    pub(super) fn look_up_at(&self) -> Mono {
        let idle = self.asked.is_none() && self.hosts.iter().any(|host| host.is_name);
        if idle { self.look_at } else { Mono::NEVER }
    }

    /// The name that should be looked up now. [`found`](Self::found) must follow, with the same name.
    pub(super) fn look_up(&mut self, now: Mono) -> Option<String> {
        if now < self.look_up_at() {
            return None;
        }
        let names: Vec<&Host> = self.hosts.iter().filter(|host| host.is_name).collect();
        let name = names.get(self.name_turn % names.len().max(1))?.text.clone();
        self.name_turn = self.name_turn.wrapping_add(1);
        self.asked = Some(name.clone());
        Some(name)
    }

    /// The answer to a lookup; empty = it failed.
    pub(super) fn found(&mut self, name: &str, addresses: &[SocketAddr], now: Mono) {
        if self.asked.as_deref() != Some(name) {
            return; // Asked for somebody who was removed, and came back under the same id.
        }
        self.asked = None;
        let Some(host) = self.hosts.iter_mut().find(|host| host.text == name) else {
            return; // The URLs have changed since: the new names may be asked for at once.
        };
        if !addresses.is_empty() {
            host.addresses = addresses.iter().take(ADDRESSES_MAX).copied().collect();
        }
        self.look_at = now + self.pause;
        self.pause = (self.pause * 2).min(LOOK_AGAIN_LONGEST);
    }
}

fn hosts_of(urls: &[String]) -> impl Iterator<Item = &str> {
    urls.iter().filter_map(|url| url::host_port(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(urls: &[&str]) -> Whereabouts {
        Whereabouts::new(&urls.iter().map(|url| (*url).to_string()).collect::<Vec<_>>())
    }

    fn addresses(all: &[&str]) -> Vec<SocketAddr> {
        all.iter().map(|address| address.parse().unwrap()).collect()
    }

    fn next(peer: &mut Whereabouts) -> String {
        let address = peer.address().map(|address| address.to_string()).unwrap_or_default();
        peer.pass_over();
        address
    }

    #[test]
    fn addresses_need_no_lookup() {
        let mut peer = at(&["http://10.0.0.1:1", "http://[::1]:2", "http://localhost:3"]);
        assert_eq!(peer.look_up_at(), Mono::NEVER);
        assert_eq!(peer.look_up(Mono(SECOND)), None);
        let dialled: Vec<String> = (0..4).map(|_| next(&mut peer)).collect();
        assert_eq!(dialled, ["10.0.0.1:1", "[::1]:2", "127.0.0.1:3", "10.0.0.1:1"]);
    }

    #[test]
    fn every_address_of_a_name_has_its_turn() {
        let mut peer = at(&["http://a:1"]);
        assert_eq!(peer.address(), None);
        assert_eq!(peer.look_up(Mono(0)).as_deref(), Some("a:1"));
        peer.found("a:1", &addresses(&["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1"]), Mono(1));
        let dialled: Vec<String> = (0..4).map(|_| next(&mut peer)).collect();
        assert_eq!(dialled, ["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1", "10.0.0.1:1"]);
        // The one that answers stays the first choice.
        assert_eq!(peer.address(), Some("10.0.0.2:1".parse().unwrap()));
        peer.reached();
        assert_eq!(peer.address(), Some("10.0.0.2:1".parse().unwrap()));
    }

    #[test]
    fn one_lookup_at_a_time_and_the_next_one_later_and_later() {
        let mut peer = at(&["http://a:1"]);
        let mut now = Mono(7 * SECOND);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            assert!(peer.look_up(now).is_some());
            now = now + 100 * SECOND;
            assert_eq!(peer.look_up(now), None, "one is under way");
            assert_eq!(peer.look_up_at(), Mono::NEVER);
            peer.found("a:1", &[], now);
            let due = peer.look_up_at();
            assert_eq!(peer.look_up(due - 1), None);
            pauses.push(due.since(now) / MS);
            now = due;
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 2_000]);
        peer.reached();
        assert!(peer.look_up(now).is_some());
        peer.found("a:1", &[], now);
        assert_eq!(peer.look_up_at(), now + LOOK_AGAIN_FIRST);
    }

    #[test]
    fn the_last_good_answer_outlives_failed_and_hanging_lookups() {
        let mut peer = at(&["http://a:1"]);
        peer.look_up(Mono(0));
        peer.found("a:1", &addresses(&["10.0.0.1:1"]), Mono(0));
        peer.look_up(Mono(SECOND));
        assert_eq!(peer.address(), Some("10.0.0.1:1".parse().unwrap()), "while it hangs");
        peer.found("a:1", &[], Mono(20 * SECOND));
        assert_eq!(peer.address(), Some("10.0.0.1:1".parse().unwrap()), "when it has failed");
        peer.look_up(Mono(40 * SECOND));
        peer.found("a:1", &addresses(&["10.0.0.9:1"]), Mono(40 * SECOND));
        assert_eq!(peer.address(), Some("10.0.0.9:1".parse().unwrap()), "until there is another one");
    }

    #[test]
    fn the_names_of_one_peer_are_asked_for_in_turn() {
        let mut peer = at(&["http://a:1", "http://10.0.0.1:1", "http://b:1"]);
        let mut asked = Vec::new();
        for _ in 0..3 {
            let now = peer.look_up_at();
            let name = peer.look_up(now).unwrap();
            peer.found(&name, &[], now);
            asked.push(name);
        }
        assert_eq!(asked, ["a:1", "b:1", "a:1"]);
        assert_eq!(peer.address(), Some("10.0.0.1:1".parse().unwrap()));
    }

    #[test]
    fn new_urls_wait_for_the_lookup_of_the_old_ones() {
        let mut peer = at(&["http://a:1"]);
        assert!(peer.look_up(Mono(0)).is_some());
        assert!(!peer.replace(&["http://a:1".into()]));
        assert!(peer.replace(&["http://b:1".into()]));
        assert_eq!(peer.look_up(Mono(SECOND)), None, "one is under way");
        peer.found("a:1", &addresses(&["10.0.0.1:1"]), Mono(SECOND));
        assert_eq!(peer.address(), None, "that is not where it is now");
        assert_eq!(peer.look_up(Mono(SECOND)).as_deref(), Some("b:1"));
        // An answer that nobody waits for.
        peer.found("a:1", &addresses(&["10.0.0.1:1"]), Mono(SECOND));
        assert_eq!(peer.look_up(Mono(9 * SECOND)), None);
    }
}
