//! What the client prints: etcdctl's four formats, byte for byte as etcdctl 3.5 prints them (the goldens in
//! `testdata/` are recorded from it). Every function returns the bytes; the caller prints them.

use std::fmt::Write;

use super::go;
use crate::api::{Alarm, Event, EventKind, Header, KeyValue, Member, RangeResult, Status};
use crate::base::codec::{base64, json_string};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Simple,
    Json,
    Fields,
    Table,
    /// Known and not available; each command says so in its own words.
    Protobuf,
}

impl Format {
    pub fn parse(word: &str) -> Result<Format, String> {
        match word {
            "simple" => Ok(Format::Simple),
            "json" => Ok(Format::Json),
            "fields" => Ok(Format::Fields),
            "table" => Ok(Format::Table),
            "protobuf" => Ok(Format::Protobuf),
            _ => Err("unsupported output format".into()),
        }
    }
}

/// The format exists but not for this command: the sentence that says so.
pub type Unsupported = String;

pub fn no_table() -> Unsupported {
    "table not supported as output format".into()
}

pub fn no_protobuf() -> Unsupported {
    "protobuf not supported as output format".into()
}

pub fn put(
    header: &Header,
    previous: Option<&KeyValue>,
    format: Format,
    hex: bool,
) -> Result<Vec<u8>, Unsupported> {
    match format {
        Format::Simple => {
            let mut out = b"OK\n".to_vec();
            if let Some(kv) = previous {
                simple_pair(&kv.key, &kv.value, hex, &mut out);
            }
            Ok(out)
        }
        Format::Json => {
            let mut out = format!("{{{}", json_header(header));
            if let Some(kv) = previous {
                let _ = write!(out, ",\"prev_kv\":{}", json_kv(kv));
            }
            Ok((out + "}\n").into_bytes())
        }
        Format::Fields => {
            let mut out = fields_header(header);
            if let Some(kv) = previous {
                fields_kv("Prev", kv, &mut out);
            }
            Ok(out.into_bytes())
        }
        Format::Table => Err(no_table()),
        Format::Protobuf => Err(no_protobuf()),
    }
}

pub fn get(
    header: &Header,
    range: &RangeResult,
    format: Format,
    hex: bool,
    values_only: bool,
) -> Result<Vec<u8>, Unsupported> {
    match format {
        Format::Simple => {
            let mut out = Vec::new();
            for kv in &range.kvs {
                if !values_only {
                    simple_line(&kv.key, hex, &mut out);
                }
                simple_line(&kv.value, hex, &mut out);
            }
            Ok(out)
        }
        Format::Json => {
            let mut out = format!("{{{}", json_header(header));
            json_kvs("kvs", &range.kvs, &mut out);
            if range.more {
                out.push_str(",\"more\":true");
            }
            json_number("count", range.count, &mut out);
            Ok((out + "}\n").into_bytes())
        }
        Format::Fields => {
            let mut out = fields_header(header);
            for kv in &range.kvs {
                fields_kv("", kv, &mut out);
            }
            let _ = writeln!(out, "\"More\" : {}\n\"Count\" : {}", range.more, range.count);
            Ok(out.into_bytes())
        }
        Format::Table => Err(no_table()),
        Format::Protobuf => Err(no_protobuf()),
    }
}

pub fn del(
    header: &Header,
    deleted: u64,
    previous: &[KeyValue],
    format: Format,
    hex: bool,
) -> Result<Vec<u8>, Unsupported> {
    match format {
        Format::Simple => {
            let mut out = format!("{deleted}\n").into_bytes();
            for kv in previous {
                simple_pair(&kv.key, &kv.value, hex, &mut out);
            }
            Ok(out)
        }
        Format::Json => {
            let mut out = format!("{{{}", json_header(header));
            json_number("deleted", deleted, &mut out);
            json_kvs("prev_kvs", previous, &mut out);
            Ok((out + "}\n").into_bytes())
        }
        Format::Fields => {
            let mut out = fields_header(header);
            let _ = writeln!(out, "\"Deleted\" : {deleted}");
            for kv in previous {
                fields_kv("Prev", kv, &mut out);
            }
            Ok(out.into_bytes())
        }
        Format::Table => Err(no_table()),
        Format::Protobuf => Err(no_protobuf()),
    }
}

/// What an operation of a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// With what was there before, if that was asked for.
    Put(Option<KeyValue>),
    Get(RangeResult),
    Del(u64, Vec<KeyValue>),
}

impl Done {
    fn wrote(&self) -> bool {
        matches!(self, Done::Put(_) | Done::Del(1.., _))
    }

    fn print(&self, header: &Header, format: Format, hex: bool) -> Result<Vec<u8>, Unsupported> {
        match self {
            Done::Put(previous) => put(header, previous.as_ref(), format, hex),
            Done::Get(range) => get(header, range, format, hex, false),
            Done::Del(deleted, previous) => del(header, *deleted, previous, format, hex),
        }
    }
}

/// Before a transaction is sent: it is too late when it is done.
pub fn refuse_txn_format(format: Format) -> Result<(), Unsupported> {
    match format {
        Format::Simple | Format::Json | Format::Fields => Ok(()),
        Format::Table => Err(no_table()),
        Format::Protobuf => Err(no_protobuf()),
    }
}

/// The header of an operation tells the revision that it saw, and nothing else: the one before the transaction until
/// something is written.
pub fn txn(
    header: &Header,
    succeeded: bool,
    done: &[Done],
    format: Format,
    hex: bool,
) -> Result<Vec<u8>, Unsupported> {
    refuse_txn_format(format)?;
    let begun = header.revision - u64::from(done.iter().any(Done::wrote));
    let mut inner = Header { revision: begun, ..Header::default() };
    let mut printed = Vec::new();
    for one in done {
        if one.wrote() {
            inner.revision = header.revision;
        }
        printed.push(one.print(&inner, format, hex)?);
    }
    Ok(match format {
        Format::Json => {
            let names = done.iter().map(|one| match one {
                Done::Put(_) => "put",
                Done::Get(_) => "range",
                Done::Del(..) => "delete_range",
            });
            let items: Vec<String> = names
                .zip(&printed)
                .map(|(name, json)| {
                    let json = String::from_utf8_lossy(json);
                    format!("{{\"Response\":{{\"response_{name}\":{}}}}}", json.trim_end())
                })
                .collect();
            let mut out = format!("{{{}", json_header(header));
            out.push_str(if succeeded { ",\"succeeded\":true" } else { "" });
            if !items.is_empty() {
                let _ = write!(out, ",\"responses\":[{}]", items.join(","));
            }
            (out + "}\n").into_bytes()
        }
        Format::Fields => {
            let head = format!("{}\"Succeeded\" : {succeeded}\n", fields_header(header));
            [head.into_bytes(), printed.concat()].concat()
        }
        _ => {
            let mut out = if succeeded { b"SUCCESS\n".to_vec() } else { b"FAILURE\n".to_vec() };
            for one in printed {
                out.push(b'\n');
                out.extend(one);
            }
            out
        }
    })
}

/// What a watch was told of one revision; no events where it was told of progress alone.
pub fn watch(header: &Header, events: &[Event], format: Format, hex: bool) -> Result<Vec<u8>, Unsupported> {
    let word = |event: &Event| match event.kind {
        EventKind::Put => "PUT",
        EventKind::Delete => "DELETE",
    };
    match format {
        Format::Simple => {
            let mut out = Vec::new();
            for event in events {
                simple_line(word(event).as_bytes(), false, &mut out);
                for kv in event.previous.iter().chain([&event.kv]) {
                    simple_pair(&kv.key, &kv.value, hex, &mut out);
                }
            }
            Ok(out)
        }
        Format::Json => Ok(json_watch(header, events, 0, false).into_bytes()),
        Format::Fields => {
            let mut out = fields_header(header);
            for event in events {
                let _ = writeln!(out, "\"Type\" : {}", word(event));
                if let Some(kv) = &event.previous {
                    fields_kv("Prev", kv, &mut out);
                }
                fields_kv("", &event.kv, &mut out);
            }
            Ok(out.into_bytes())
        }
        Format::Table => Err(no_table()),
        Format::Protobuf => Err(no_protobuf()),
    }
}

/// A watch that the server has ended.
pub fn watch_canceled(header: &Header, compacted: u64, format: Format) -> Result<Vec<u8>, Unsupported> {
    match format {
        Format::Json => Ok(json_watch(header, &[], compacted, true).into_bytes()),
        format => watch(header, &[], format, false),
    }
}

/// Whether `watch` prints in this format, to be known before anything happens.
pub fn refuse_watch_format(format: Format) -> Result<(), Unsupported> {
    watch(&Header::default(), &[], format, false).map(drop)
}

fn json_watch(header: &Header, events: &[Event], compacted: u64, canceled: bool) -> String {
    let events: Vec<String> = events
        .iter()
        .map(|event| {
            let kind = if event.kind == EventKind::Delete { "\"type\":1," } else { "" };
            let previous =
                event.previous.as_ref().map_or(String::new(), |kv| format!(",\"prev_kv\":{}", json_kv(kv)));
            format!("{{{kind}\"kv\":{}{previous}}}", json_kv(&event.kv))
        })
        .collect();
    format!(
        "{{\"Header\":{{{}}},\"Events\":[{}],\"CompactRevision\":{compacted},\"Canceled\":{canceled},\"Created\":false}}\n",
        json_header_fields(header),
        events.join(",")
    )
}

/// etcd's member list speaks of the cluster, not of the store: its header has no revision.
pub fn members(
    header: &Header,
    members: &[Member],
    format: Format,
    hex: bool,
) -> Result<Vec<u8>, Unsupported> {
    let header = Header { revision: 0, ..*header };
    let status = |member: &Member| if member.name.is_empty() { "unstarted" } else { "started" };
    let rows = || {
        members.iter().map(move |member| {
            vec![
                format!("{:x}", member.id),
                status(member).to_owned(),
                member.name.clone(),
                member.peer_urls.join(","),
                member.client_urls.join(","),
                member.learner.to_string(),
            ]
        })
    };
    match format {
        Format::Simple => Ok(rows().map(|row| row.join(", ") + "\n").collect::<String>().into_bytes()),
        Format::Table => {
            let titles = ["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"];
            Ok(table(&titles, &rows().collect::<Vec<_>>()).into_bytes())
        }
        Format::Json if hex => Ok(json_members_in_hex(&header, members).into_bytes()),
        Format::Json => Ok(json_members(&header, members).into_bytes()),
        Format::Fields => {
            let mut out = fields_header(&header);
            for member in members {
                let _ = writeln!(out, "\"ID\" : {}\n\"Name\" : {}", member.id, quote(&member.name));
                for url in &member.peer_urls {
                    let _ = writeln!(out, "\"PeerURL\" : {}", quote(url));
                }
                for url in &member.client_urls {
                    let _ = writeln!(out, "\"ClientURL\" : {}", quote(url));
                }
                let _ = writeln!(out, "\"IsLearner\" : {}\n", member.learner);
            }
            Ok(out.into_bytes())
        }
        Format::Protobuf => Err(no_protobuf()),
    }
}

/// Alarms that stand, or have just been ended: then etcdctl prints no header as JSON.
pub fn alarms(
    header: &Header,
    alarms: &[Alarm],
    ended: bool,
    format: Format,
) -> Result<Vec<u8>, Unsupported> {
    match format {
        Format::Simple => {
            let lines = alarms.iter().map(|alarm| format!("{alarm} \n"));
            Ok(lines.collect::<String>().into_bytes())
        }
        Format::Json => {
            let json = |alarm: &Alarm| match (alarm.member, alarm.kind.number()) {
                (0, kind) => format!("{{\"alarm\":{kind}}}"),
                (member, kind) => format!("{{\"memberID\":{member},\"alarm\":{kind}}}"),
            };
            let alarms: Vec<String> = alarms.iter().map(json).collect();
            let header = (!ended).then(|| json_header(header));
            let alarms = (!alarms.is_empty()).then(|| format!("\"alarms\":[{}]", alarms.join(",")));
            let fields: Vec<String> = header.into_iter().chain(alarms).collect();
            Ok(format!("{{{}}}\n", fields.join(",")).into_bytes())
        }
        Format::Fields => {
            let mut out = fields_header(header);
            for Alarm { member, kind } in alarms {
                let _ = writeln!(out, "\"MemberID\" : {member}\n\"AlarmType\" : {}\n", kind.word());
            }
            Ok(out.into_bytes())
        }
        Format::Table => Err(no_table()),
        Format::Protobuf => Err(no_protobuf()),
    }
}

/// etcdctl prints what became of the members as lines or as JSON, and as nothing else.
pub fn refuse_members_format(format: Format) -> Result<(), Unsupported> {
    match format {
        Format::Simple | Format::Json => Ok(()),
        Format::Table => Err("table not supported as output format".into()),
        Format::Fields => Err("fields not supported as output format".into()),
        Format::Protobuf => Err(no_protobuf()),
    }
}

/// `line`, or everybody who is there now. Here `--hex` changes nothing, as in etcdctl.
pub fn changed_members(header: &Header, members: &[Member], line: String, format: Format) -> Vec<u8> {
    match format {
        Format::Json => json_members(header, members).into_bytes(),
        _ => line.into_bytes(),
    }
}

/// The new member's id, and the settings with which to start it. `name` is what it shall be called.
pub fn member_added(
    header: &Header,
    added: &Member,
    members: &[Member],
    name: &str,
    format: Format,
) -> Vec<u8> {
    if format == Format::Json {
        let members: Vec<String> = members.iter().map(json_member).collect();
        let (header, added) = (json_cluster_header(header, |id| id.to_string()), json_member(added));
        return format!("{{{header},\"member\":{added},\"members\":[{}]}}\n", members.join(",")).into_bytes();
    }
    // Who has not started has no name yet; the new one is called what it will be called.
    let name_of = |member: &Member| if member.id == added.id { name.to_owned() } else { member.name.clone() };
    let cluster: Vec<String> = members
        .iter()
        .flat_map(|member| member.peer_urls.iter().map(move |url| format!("{}={url}", name_of(member))))
        .collect();
    format!(
        "Member {:16x} added to cluster {:16x}\n\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\n\
         ETCD_INITIAL_ADVERTISE_PEER_URLS={}\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        added.id,
        header.cluster,
        quote(name),
        quote(&cluster.join(",")),
        quote(&added.peer_urls.join(","))
    )
    .into_bytes()
}

fn json_cluster_header(header: &Header, id: impl Fn(u64) -> String) -> String {
    format!(
        "\"header\":{{\"cluster_id\":{},\"member_id\":{},\"raft_term\":{}}}",
        id(header.cluster),
        id(header.member),
        header.term
    )
}

fn json_members(header: &Header, members: &[Member]) -> String {
    let members: Vec<String> = members.iter().map(json_member).collect();
    format!("{{{},\"members\":[{}]}}\n", json_cluster_header(header, |id| id.to_string()), members.join(","))
}

/// etcdctl's list with `--hex`: ids are strings, nothing is left out, and one name is spelled differently. Only that a
/// member is a learner etcdctl does not say there; here it is said, or it would be taken for a voter.
fn json_members_in_hex(header: &Header, members: &[Member]) -> String {
    let id = |id: u64| format!("\"{id:x}\"");
    let urls = |urls: &[String]| if urls.is_empty() { "null".into() } else { json_strings(urls) };
    let members: Vec<String> = members
        .iter()
        .map(|member| {
            format!(
                "{{\"ID\":{},\"name\":{},\"peerURLs\":{},\"clientURLS\":{}{}}}",
                id(member.id),
                json_string(&member.name),
                urls(&member.peer_urls),
                urls(&member.client_urls),
                if member.learner { ",\"isLearner\":true" } else { "" }
            )
        })
        .collect();
    format!("{{{},\"members\":[{}]}}\n", json_cluster_header(header, id), members.join(","))
}

fn json_strings(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| json_string(text)).collect();
    format!("[{}]", texts.join(","))
}

fn json_member(member: &Member) -> String {
    let mut out = format!("{{\"ID\":{}", member.id);
    if !member.name.is_empty() {
        let _ = write!(out, ",\"name\":{}", json_string(&member.name));
    }
    for (name, urls) in [("peerURLs", &member.peer_urls), ("clientURLs", &member.client_urls)] {
        if !urls.is_empty() {
            let _ = write!(out, ",\"{name}\":{}", json_strings(urls));
        }
    }
    out + if member.learner { ",\"isLearner\":true}" } else { "}" }
}

/// One endpoint's answer to STATUS.
pub struct EndpointStatus {
    pub endpoint: String,
    pub header: Header,
    pub status: Status,
}

pub fn endpoint_status(found: &[EndpointStatus], format: Format) -> Result<Vec<u8>, Unsupported> {
    let rows = || {
        found.iter().map(|EndpointStatus { endpoint, status, .. }| {
            vec![
                endpoint.clone(),
                format!("{:x}", status.member_id),
                status.version.clone(),
                go::size(status.db_size),
                (status.leader == status.member_id).to_string(),
                status.learner.to_string(),
                status.term.to_string(),
                status.commit_index.to_string(),
                status.applied_index.to_string(),
                status.errors.join(", "),
            ]
        })
    };
    match format {
        Format::Simple => Ok(rows().map(|row| row.join(", ") + "\n").collect::<String>().into_bytes()),
        Format::Table => {
            let titles = [
                "ENDPOINT",
                "ID",
                "VERSION",
                "DB SIZE",
                "IS LEADER",
                "IS LEARNER",
                "RAFT TERM",
                "RAFT INDEX",
                "RAFT APPLIED INDEX",
                "ERRORS",
            ];
            Ok(table(&titles, &rows().collect::<Vec<_>>()).into_bytes())
        }
        Format::Json => {
            let items: Vec<String> = found.iter().map(json_status).collect();
            Ok(format!("[{}]\n", items.join(",")).into_bytes())
        }
        Format::Fields => Ok(found.iter().map(fields_status).collect::<String>().into_bytes()),
        Format::Protobuf => Err(no_protobuf()),
    }
}

fn json_status(EndpointStatus { endpoint, header, status }: &EndpointStatus) -> String {
    let mut out = format!(
        "{{\"Endpoint\":{},\"Status\":{{{},\"version\":{}",
        json_string(endpoint),
        json_header(header),
        json_string(&status.version)
    );
    for (name, number) in [
        ("dbSize", status.db_size),
        ("leader", status.leader),
        ("raftIndex", status.commit_index),
        ("raftTerm", status.term),
        ("raftAppliedIndex", status.applied_index),
    ] {
        json_number(name, number, &mut out);
    }
    if !status.errors.is_empty() {
        let _ = write!(out, ",\"errors\":{}", json_strings(&status.errors));
    }
    json_number("dbSizeInUse", status.db_size_in_use, &mut out);
    out.push_str(if status.learner { ",\"isLearner\":true}}" } else { "}}" });
    out
}

fn fields_status(EndpointStatus { endpoint, header, status }: &EndpointStatus) -> String {
    let errors: Vec<String> = status.errors.iter().map(|error| quote(error)).collect();
    format!(
        "{}\"Version\" : {}\n\"DBSize\" : {}\n\"Leader\" : {}\n\"IsLearner\" : {}\n\"RaftIndex\" : {}\n\
         \"RaftTerm\" : {}\n\"RaftAppliedIndex\" : {}\n\"Errors\" : [{}]\n\"Endpoint\" : {}\n\n",
        fields_header(header),
        quote(&status.version),
        status.db_size,
        status.leader,
        status.learner,
        status.commit_index,
        status.term,
        status.applied_index,
        errors.join(" "),
        quote(endpoint)
    )
}

/// The hash of one endpoint's history.
pub struct EndpointHash {
    pub endpoint: String,
    pub header: Header,
    pub hash: u64,
    pub compact_revision: u64,
}

pub fn endpoint_hashes(found: &[EndpointHash], format: Format) -> Result<Vec<u8>, Unsupported> {
    let rows = || found.iter().map(|told| vec![told.endpoint.clone(), told.hash.to_string()]);
    let json = |told: &EndpointHash| {
        let (endpoint, header) = (json_string(&told.endpoint), json_header(&told.header));
        // As etcd tells it where there was no compaction.
        let compacted =
            if told.compact_revision == 0 { "-1".into() } else { told.compact_revision.to_string() };
        let hash = told.hash;
        format!(
            "{{\"Endpoint\":{endpoint},\"HashKV\":{{{header},\"hash\":{hash},\"compact_revision\":{compacted}}}}}"
        )
    };
    let fields = |told: &EndpointHash| {
        let (header, endpoint) = (fields_header(&told.header), quote(&told.endpoint));
        format!("{header}\"Endpoint\" : {endpoint}\n\"Hash\" : {}\n\n", told.hash)
    };
    let text: String = match format {
        Format::Simple => rows().map(|row| row.join(", ") + "\n").collect(),
        Format::Table => table(&["ENDPOINT", "HASH"], &rows().collect::<Vec<_>>()),
        Format::Json => format!("[{}]\n", found.iter().map(json).collect::<Vec<_>>().join(",")),
        Format::Fields => found.iter().map(fields).collect(),
        Format::Protobuf => return Err(no_protobuf()),
    };
    Ok(text.into_bytes())
}

/// One endpoint's health; `error` is empty exactly when it is healthy.
pub struct EndpointHealth {
    pub endpoint: String,
    /// As Go prints a duration.
    pub took: String,
    pub error: String,
}

/// What goes to standard output, and what to standard error: in the simple format the sick go there.
pub fn endpoint_health(found: &[EndpointHealth], format: Format) -> Result<(Vec<u8>, Vec<u8>), Unsupported> {
    let rows = |row: fn(&EndpointHealth) -> String| found.iter().map(row).collect::<Vec<_>>();
    let out = match format {
        Format::Simple => {
            let (mut out, mut err) = (String::new(), String::new());
            for EndpointHealth { endpoint, took, error } in found {
                let _ = if error.is_empty() {
                    writeln!(out, "{endpoint} is healthy: successfully committed proposal: took = {took}")
                } else {
                    writeln!(err, "{endpoint} is unhealthy: failed to commit proposal: {error}")
                };
            }
            return Ok((out.into_bytes(), err.into_bytes()));
        }
        Format::Json => {
            let items = rows(|EndpointHealth { endpoint, took, error }| {
                let (endpoint, took) = (json_string(endpoint), json_string(took));
                let error_field = if error.is_empty() {
                    String::new()
                } else {
                    format!(",\"error\":{}", json_string(error))
                };
                format!(
                    "{{\"endpoint\":{endpoint},\"health\":{},\"took\":{took}{error_field}}}",
                    error.is_empty()
                )
            });
            format!("[{}]\n", items.join(","))
        }
        Format::Fields => rows(|EndpointHealth { endpoint, took, error }| {
            let health = error.is_empty();
            let endpoint = quote(endpoint);
            format!(
                "\"Endpoint\" : {endpoint}\n\"Health\" : {health}\n\"Took\" : {took}\n\"Error\" : {error}\n\n"
            )
        })
        .concat(),
        Format::Table => {
            let cells = found.iter().map(|EndpointHealth { endpoint, took, error }| {
                vec![endpoint.clone(), error.is_empty().to_string(), took.clone(), error.clone()]
            });
            table(&["ENDPOINT", "HEALTH", "TOOK", "ERROR"], &cells.collect::<Vec<_>>())
        }
        Format::Protobuf => return Err(no_protobuf()),
    };
    Ok((out.into_bytes(), Vec::new()))
}

fn simple_pair(key: &[u8], value: &[u8], hex: bool, out: &mut Vec<u8>) {
    simple_line(key, hex, out);
    simple_line(value, hex, out);
}

fn simple_line(bytes: &[u8], hex: bool, out: &mut Vec<u8>) {
    if hex {
        for byte in bytes {
            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'\n');
}

fn quote(text: &str) -> String {
    go::quote(text.as_bytes())
}

pub fn fields_header(header: &Header) -> String {
    let Header { cluster, member, revision, term } = header;
    format!(
        "\"ClusterID\" : {cluster}\n\"MemberID\" : {member}\n\"Revision\" : {revision}\n\"RaftTerm\" : {term}\n"
    )
}

fn fields_kv(prefix: &str, kv: &KeyValue, out: &mut String) {
    let _ = write!(
        out,
        "\"{prefix}Key\" : {}\n\"{prefix}CreateRevision\" : {}\n\"{prefix}ModRevision\" : {}\n\
         \"{prefix}Version\" : {}\n\"{prefix}Value\" : {}\n\"{prefix}Lease\" : {}\n",
        go::quote(&kv.key),
        kv.create_revision,
        kv.mod_revision,
        kv.version,
        go::quote(&kv.value),
        kv.lease
    );
}

/// Zeroes are left out, as protobuf's JSON leaves them out.
fn json_number(name: &str, number: u64, out: &mut String) {
    if number != 0 {
        let _ = write!(out, ",\"{name}\":{number}");
    }
}

fn json_header(header: &Header) -> String {
    format!("\"header\":{{{}}}", json_header_fields(header))
}

pub fn json_header_fields(header: &Header) -> String {
    let mut fields = String::new();
    json_number("cluster_id", header.cluster, &mut fields);
    json_number("member_id", header.member, &mut fields);
    json_number("revision", header.revision, &mut fields);
    json_number("raft_term", header.term, &mut fields);
    fields.trim_start_matches(',').to_owned()
}

fn json_kvs(name: &str, kvs: &[KeyValue], out: &mut String) {
    if !kvs.is_empty() {
        let items: Vec<String> = kvs.iter().map(json_kv).collect();
        let _ = write!(out, ",\"{name}\":[{}]", items.join(","));
    }
}

fn json_kv(kv: &KeyValue) -> String {
    let mut out = format!(",\"key\":\"{}\"", base64(&kv.key));
    json_number("create_revision", kv.create_revision, &mut out);
    json_number("mod_revision", kv.mod_revision, &mut out);
    json_number("version", kv.version, &mut out);
    if !kv.value.is_empty() {
        let _ = write!(out, ",\"value\":\"{}\"", base64(&kv.value));
    }
    if kv.lease != 0 {
        let _ = write!(out, ",\"lease\":{}", kv.lease);
    }
    format!("{{{}}}", &out[1..])
}

/// Titles centred, cells to the right, rules of `-` and `+`; two of them where there are no rows.
fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let length = |text: &str| text.chars().count();
    let widths: Vec<usize> = titles
        .iter()
        .enumerate()
        .map(|(column, title)| {
            rows.iter().map(|row| length(&row[column])).chain([length(title)]).max().unwrap_or_default()
        })
        .collect();
    let mut rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect();
    rule.push_str("+\n");
    let mut out = rule.clone();
    for (title, width) in titles.iter().zip(&widths) {
        let left = (width - length(title)) / 2;
        let right = width - length(title) - left;
        let _ = write!(out, "| {}{title}{} ", " ".repeat(left), " ".repeat(right));
    }
    out.push_str("|\n");
    out.push_str(&rule);
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(out, "| {}{cell} ", " ".repeat(width - length(cell)));
        }
        out.push_str("|\n");
    }
    out.push_str(&rule);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from etcdctl 3.5.1, whose times are never the same twice.
    #[test]
    fn health_in_four_formats() {
        let found = [
            ("127.0.0.1:23790", "2.019429ms", ""),
            ("127.0.0.1:1", "1.00033754s", "context deadline exceeded"),
        ]
        .map(|(endpoint, took, error)| EndpointHealth {
            endpoint: endpoint.into(),
            took: took.into(),
            error: error.into(),
        });
        let print = |format| {
            let (out, err) = endpoint_health(&found, format).unwrap();
            (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
        };
        assert_eq!(
            print(Format::Simple),
            (
                "127.0.0.1:23790 is healthy: successfully committed proposal: took = 2.019429ms\n".into(),
                "127.0.0.1:1 is unhealthy: failed to commit proposal: context deadline exceeded\n".into()
            )
        );
        assert_eq!(
            print(Format::Json).0,
            "[{\"endpoint\":\"127.0.0.1:23790\",\"health\":true,\"took\":\"2.019429ms\"},{\"endpoint\":\"127.0.0.1:1\",\
             \"health\":false,\"took\":\"1.00033754s\",\"error\":\"context deadline exceeded\"}]\n"
        );
        assert_eq!(
            print(Format::Fields).0,
            "\"Endpoint\" : \"127.0.0.1:23790\"\n\"Health\" : true\n\"Took\" : 2.019429ms\n\"Error\" : \n\n\
             \"Endpoint\" : \"127.0.0.1:1\"\n\"Health\" : false\n\"Took\" : 1.00033754s\n\
             \"Error\" : context deadline exceeded\n\n"
        );
        assert_eq!(
            print(Format::Table).0,
            "+-----------------+--------+-------------+---------------------------+\n\
             |    ENDPOINT     | HEALTH |    TOOK     |           ERROR           |\n\
             +-----------------+--------+-------------+---------------------------+\n\
             | 127.0.0.1:23790 |   true |  2.019429ms |                           |\n\
             |     127.0.0.1:1 |  false | 1.00033754s | context deadline exceeded |\n\
             +-----------------+--------+-------------+---------------------------+\n"
        );
    }

    #[test]
    fn a_learner_that_has_not_started() {
        let member = Member {
            id: 0xabc,
            peer_urls: vec!["http://a:1".into(), "http://b:1".into()],
            learner: true,
            ..Member::default()
        };
        let print = |format| {
            String::from_utf8(
                members(&Header::default(), std::slice::from_ref(&member), format, false).unwrap(),
            )
            .unwrap()
        };
        assert_eq!(print(Format::Simple), "abc, unstarted, , http://a:1,http://b:1, , true\n");
        assert_eq!(
            print(Format::Json),
            "{\"header\":{\"cluster_id\":0,\"member_id\":0,\"raft_term\":0},\"members\":[{\"ID\":2748,\
             \"peerURLs\":[\"http://a:1\",\"http://b:1\"],\"isLearner\":true}]}\n"
        );
        let hex = members(&Header::default(), std::slice::from_ref(&member), Format::Json, true).unwrap();
        assert_eq!(
            String::from_utf8(hex).unwrap(),
            "{\"header\":{\"cluster_id\":\"0\",\"member_id\":\"0\",\"raft_term\":0},\"members\":[{\"ID\":\"abc\",\
             \"name\":\"\",\"peerURLs\":[\"http://a:1\",\"http://b:1\"],\"clientURLS\":null,\"isLearner\":true}]}\n"
        );
    }
}
