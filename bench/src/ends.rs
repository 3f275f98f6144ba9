//! Leases that end by themselves, each with a key, many in a second: how many the system ends in a second, and what puts of
//! others take meanwhile.

use std::time::{Duration, Instant};

use crate::Result;
use crate::cluster::Client;
use crate::key_rows::with_clients;
use crate::load::{Kind, Plan, Wire, attached_key};
use crate::meanwhile::add_quantiles;
use crate::report::Figures;

const LEASES: u64 = 150_000;

/// So many have the same TTL, the next as many a second more: that, and not less, is due in a second, for the leases of one
/// TTL are granted within a second too.
const ALIKE: u64 = 15_000;

/// The clients that put are those of the rows beside other work.
const CLIENTS: usize = 50;

const REQUEST: Duration = Duration::from_secs(30);

/// How long all ends may take.
const ENDS_MAX: Duration = Duration::from_secs(300);

pub fn measure(put: &Plan, name: &'static str, figures: &mut Figures) -> Result<()> {
    // Enough to grant them all and to put their keys, before the first is due.
    let ttl_s = if put.wire == Wire::Etcd { 150 } else { 20 };
    let mut client = Client::new(put.wire, put.port);
    let before = client.count(REQUEST)?;
    let since = Instant::now();
    put.once(Kind::Grant { ttl_s, alike: ALIKE }, LEASES)?;
    figures.add("grants of leases: rate", name, LEASES as f64 / since.elapsed().as_secs_f64());
    put.once(Kind::Attach, LEASES)?;
    let all = before + LEASES;
    if client.count(REQUEST)? != all {
        return Err("leases ended while they were granted: the machine is too slow for this row".into());
    }
    let first = wait_for(&mut client, |client| gone(client, 0))?;
    let (last, done) = std::thread::scope(|scope| {
        let last = scope.spawn(move || {
            wait_for(&mut client, |client| gone(client, LEASES - 1))?;
            wait_for(&mut client, |client| Ok(client.count(REQUEST)? == before))
        });
        let done = with_clients(put, CLIENTS);
        (last.join().expect("it does not panic"), done)
    });
    let seconds = (last? - first).as_secs_f64();
    figures.add("ends of leases with a key each: rate", name, LEASES as f64 / seconds);
    add_quantiles(
        &done?,
        [
            "put, 50 clients, while leases end: p50",
            "put, 50 clients, while leases end: p99",
            "put, 50 clients, while leases end: p99.9",
        ],
        name,
        figures,
    );
    Ok(())
}

/// Whether the key of this lease is. A count would say more, but etcd walks all keys for one.
fn gone(client: &mut Client, number: u64) -> Result<bool> {
    Ok(client.get(&attached_key(number), REQUEST)?.is_none())
}

/// When it is so.
fn wait_for(client: &mut Client, mut is_so: impl FnMut(&mut Client) -> Result<bool>) -> Result<Instant> {
    let since = Instant::now();
    while !is_so(client)? {
        if since.elapsed() > ENDS_MAX {
            return Err("leases do not end".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Instant::now())
}
