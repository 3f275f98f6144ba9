//! Networks that fail between members: split one way and both ways, slow, torn in the middle of a frame. Clients
//! work meanwhile, and what they saw is judged as in `kill.rs`. Wherever two members can still hear each other, writes
//! must go on during the split too.
//!
//! `SPLITS=1000 cargo test --test tests split` for a longer run, `SEED=n` for another plan.

use pawl::base::Rng;

use crate::harness::{Cluster, PATIENCE, pause, until};
use crate::proxy::{Link, Links, Proxies};
use crate::under_load::{Load, from_env, setup, under_load};

#[test]
fn a_split_network_loses_and_invents_nothing() {
    let splits = from_env("SPLITS", 14);
    let mut cluster = Cluster::prepare(&setup());
    let proxies = Proxies::start(&mut cluster);
    under_load("splits", cluster, |cluster, load, rng| {
        // Every kind in turn: the dice choose the rest.
        for number in 0..splits {
            split_once(number % 7, cluster, &proxies.0, load, rng);
        }
    });
}

fn split_once(kind: u64, cluster: &Cluster, links: &Links, load: &Load, rng: &mut Rng) {
    pause(rng.below(200));
    let leader = cluster.leader();
    let one = if rng.one_in(3) { (leader + 1) % 3 } else { leader };
    let others = [(one + 1) % 3, (one + 2) % 3];
    let cut = if rng.one_in(2) { Link::Silent } else { Link::Refused };
    let mut quorum = true;
    match kind {
        0 => links.set_around(one, cut),
        // It hears everything, and nobody hears it; and the other way round.
        1 => others.iter().for_each(|&other| links.set(one, other, cut)),
        2 => others.iter().for_each(|&other| links.set(other, one, cut)),
        // Both still reach the third.
        3 => {
            links.set(one, others[0], cut);
            links.set(others[0], one, cut);
        }
        4 => links.set_around(one, Link::Slow(rng.between(1, 60))),
        5 => {
            (0..3).for_each(|member| links.set_around(member, Link::Torn(rng.between(1, 4_000) as usize)));
            quorum = false;
        }
        _ => {
            (0..3).for_each(|member| links.set_around(member, cut));
            quorum = false;
        }
    }
    load.harmed(1);
    pause(rng.between(50, 1_200));
    if quorum {
        load.wait_for_progress(20);
    }
    if kind < 3 && one == leader {
        let status = |at: usize| until("STATUS", PATIENCE, || cluster.members[at].status());
        let former = status(one).field("member_id").clone();
        for other in others {
            assert_ne!(
                *status(other).field("leader"),
                former,
                "writes went on without the leader that was cut off"
            );
        }
    }
    links.heal();
    load.wait_for_progress(20);
}
