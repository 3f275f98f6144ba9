//! How a member that is added to a running cluster finds out which one, and under which id it was added: both are
//! known to the members alone, because its id depends on when it was added. It asks them, before its own loop
//! runs, with a greeting of its own on their peer ports.
//!
//! Members that are away and a name service that hangs may keep it for minutes, so it asks on a thread of its own, and
//! listens for a signal to stop meanwhile. That thread touches nothing but its sockets: it may be left behind.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::BytesMut;
use log::info;
use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Token, Waker};

use super::Settings;
use super::url::host_port;
use super::workers::spawn;
use crate::api::Member;
use crate::base::{ClusterId, Error, MemberId, Result};
use crate::proto::peer::{self, Frame};

/// For connecting, and for each piece of the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the members say.
pub(super) struct Found {
    pub cluster: ClusterId,
    pub me: MemberId,
    /// Everybody, this member included.
    pub members: Vec<Member>,
}

const ANSWERED: Token = Token(0);
const SIGNALS: Token = Token(1);

/// Asks the members of `--initial-cluster`. None if a signal to stop came first.
pub(super) fn find(settings: &Settings, signals: &mut UnixStream) -> Result<Option<Found>> {
    let failed = |e| Error::io("cannot wait", "for the cluster to join".as_ref(), e);
    let mut poll = Poll::new().map_err(failed)?;
    // Held here too: one that is dropped takes back the wake-up that was not seen yet.
    let waker = Arc::new(Waker::new(poll.registry(), ANSWERED).map_err(failed)?);
    poll.registry().register(signals, SIGNALS, Interest::READABLE).map_err(failed)?;
    let (answer, answers) = channel();
    let (settings, bell) = (settings.clone(), waker.clone());
    spawn("joining", move || {
        // A send that fails: a signal came, and nobody waits any more.
        let _ = answer.send(ask_all(&settings)).map(|()| bell.wake());
    })?;
    let mut events = Events::with_capacity(2);
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(failed(e)),
            _ => {}
        }
        if events.iter().any(|event| event.token() == SIGNALS) {
            info!("a signal to stop, before the cluster to join was found");
            return Ok(None);
        }
        if let Ok(found) = answers.try_recv() {
            // The loop will watch them.
            poll.registry().deregister(signals).map_err(failed)?;
            return found.map(Some);
        }
    }
}

/// One after the other, until one knows this member.
fn ask_all(settings: &Settings) -> Result<Found> {
    let mut last = "--initial-cluster names no other member".to_string();
    for (name, urls) in settings.initial_cluster.iter().filter(|(name, _)| *name != settings.name) {
        for url in urls {
            match ask(url).and_then(|(cluster, members)| place(settings, cluster, members)) {
                Ok(found) => return Ok(found),
                Err(why) => last = format!("{name} at {url}: {why}"),
            }
        }
    }
    Err(Error::Refused(format!("cannot join the cluster that --initial-cluster names: {last}")))
}

/// This member among those that were found. Flags that disagree with them are refused, as etcd does: they would
/// lead operators astray.
fn place(
    settings: &Settings,
    cluster: ClusterId,
    members: Vec<Member>,
) -> std::result::Result<Found, String> {
    let same = |a: &[String], b: &[String]| a.len() == b.len() && a.iter().all(|url| b.contains(url));
    if members.len() != settings.initial_cluster.len() {
        return Err(format!(
            "member count is unequal: {} members, {} in --initial-cluster",
            members.len(),
            settings.initial_cluster.len()
        ));
    }
    for member in &members {
        if !settings.initial_cluster.iter().any(|(_, urls)| same(urls, &member.peer_urls)) {
            return Err(format!(
                "member {:x} has the peer URLs {}, which are not in --initial-cluster",
                member.id,
                member.peer_urls.join(",")
            ));
        }
    }
    let me = members.iter().find(|member| same(&member.peer_urls, &settings.initial_advertise_peer_urls));
    match me.map(|member| member.id) {
        Some(me) => Ok(Found { cluster, me, members }),
        None => Err(format!(
            "no member has the peer URLs {}: add it first (member add)",
            settings.initial_advertise_peer_urls.join(",")
        )),
    }
}

fn ask(url: &str) -> std::result::Result<(ClusterId, Vec<Member>), String> {
    let host = host_port(url).ok_or("no host and port")?;
    let addresses: Vec<SocketAddr> = host.to_socket_addrs().map_err(|e| e.to_string())?.collect();
    let mut last = "its name cannot be resolved".to_string();
    for address in addresses {
        match ask_at(address) {
            Ok(answer) => return Ok(answer),
            Err(why) => last = why,
        }
    }
    Err(last)
}

fn ask_at(address: SocketAddr) -> std::result::Result<(ClusterId, Vec<Member>), String> {
    let text = |e: std::io::Error| e.to_string();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(text)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(text)?;
    let mut output = BytesMut::new();
    peer::encode(&Frame::AskMembers, &mut output);
    stream.write_all(&output).map_err(text)?;
    let mut input = BytesMut::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match peer::decode(&mut input) {
            Ok(Some(Frame::Members { cluster, members })) => return Ok((cluster, members)),
            Ok(Some(Frame::Refused { why })) => return Err(format!("it refuses: {why}")),
            Ok(Some(_)) => return Err("it speaks out of turn".into()),
            Err(fault) => return Err(fault.text),
            Ok(None) => {}
        }
        let count = stream.read(&mut buffer).map_err(text)?;
        if count == 0 {
            return Err("the connection was closed".into());
        }
        input.extend_from_slice(&buffer[..count]);
    }
}
