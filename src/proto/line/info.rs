//! A member's state as text: `INFO` for tools of Redis, `mntr` and `stat` for those of ZooKeeper.

use std::fmt::Write;

use super::ServerInfo;
use super::frame::Words;
use crate::api::Status;

/// Which sections of `INFO` were asked for: a set of bits, by position in [`SECTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections(u8);

const SECTIONS: [&str; 4] = ["Server", "Persistence", "Raft", "Storage"];

impl Sections {
    /// The sections named by the words from `first` on; all where there are none. Redis leaves names that it
    /// does not know out without a word, and its tools count on that.
    pub fn named(words: &Words, first: usize) -> Sections {
        if first == words.count() {
            return Sections(u8::MAX);
        }
        let mut bits = 0;
        for word in first..words.count() {
            let name = words.get(word);
            if ["all", "default", "everything"].iter().any(|all| name.eq_ignore_ascii_case(all.as_bytes())) {
                return Sections(u8::MAX);
            }
            if let Some(at) = SECTIONS.iter().position(|one| name.eq_ignore_ascii_case(one.as_bytes())) {
                bits |= 1 << at;
            }
        }
        Sections(bits)
    }
}

/// Sections of `name:value` lines, as Redis writes them.
pub fn info(status: &Status, info: &ServerInfo, sections: Sections) -> String {
    let mut text = String::new();
    for (at, name) in SECTIONS.iter().enumerate() {
        if sections.0 & 1 << at == 0 {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let _ = write!(text, "# {name}\r\n");
        for (name, value) in section(at, status, info) {
            let value: String = value.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            let _ = write!(text, "{name}:{value}\r\n");
        }
    }
    text
}

fn section(at: usize, status: &Status, info: &ServerInfo) -> Vec<(&'static str, String)> {
    match SECTIONS[at] {
        "Server" => vec![
            ("pawl_version", status.version.clone()),
            // What Redis's tools look for before they believe that they talk to one server.
            ("redis_mode", "standalone".into()),
            ("name", status.name.clone()),
            ("member_id", format!("{:x}", status.member_id)),
            ("cluster_id", format!("{:x}", status.cluster_id)),
            ("max_request_bytes", info.limits.request_bytes_max.to_string()),
            ("errors", status.errors.len().to_string()),
        ],
        // ioredis waits for `loading` to be 0. A member that answers at all has replayed its log.
        "Persistence" => vec![("loading", "0".into())],
        "Raft" => vec![
            ("leader", format!("{:x}", status.leader)),
            ("is_leader", u8::from(status.leader == status.member_id).to_string()),
            ("is_learner", u8::from(status.learner).to_string()),
            ("term", status.term.to_string()),
            ("commit_index", status.commit_index.to_string()),
            ("applied_index", status.applied_index.to_string()),
        ],
        _ => vec![
            ("revision", status.revision.to_string()),
            ("compact_revision", status.compact_revision.to_string()),
            ("db_size", status.db_size.to_string()),
            ("db_size_in_use", status.db_size_in_use.to_string()),
        ],
    }
}

/// What ZooKeeper calls the part that a member plays.
fn mode(status: &Status) -> &'static str {
    match status.leader {
        0 => "looking",
        leader if leader == status.member_id => "leader",
        _ if status.learner => "observer",
        _ => "follower",
    }
}

/// `name<TAB>value` lines: ZooKeeper's names where the meaning is the same, ours for the rest.
pub fn mntr(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{name}\t{value}");
    };
    line("zk_version", &format_args!("pawl {}", status.version));
    line("zk_server_state", &mode(status));
    line("zk_approximate_data_size", &status.db_size_in_use);
    line("pawl_member_id", &format_args!("{:x}", status.member_id));
    line("pawl_leader_id", &format_args!("{:x}", status.leader));
    line("pawl_term", &status.term);
    line("pawl_commit_index", &status.commit_index);
    line("pawl_applied_index", &status.applied_index);
    line("pawl_revision", &status.revision);
    line("pawl_db_size", &status.db_size);
    line("pawl_errors", &status.errors.len());
    text
}

/// A few lines for a person.
pub fn stat(status: &Status) -> String {
    format!(
        "Pawl version: {}\nRevision: {}\nApplied index: {}\nMode: {}\n",
        status.version,
        status.revision,
        status.applied_index,
        mode(status)
    )
}
