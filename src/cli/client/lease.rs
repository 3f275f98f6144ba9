//! `lease grant|revoke|timetolive|list|keep-alive`. Words, formats and exit codes are etcdctl's, recorded from 3.5.1.

use std::ffi::OsString;
use std::fmt::Write;

use super::args::{Lease, LeaseKeepAlive, LeaseTimeToLive, LeaseWords};
use super::session::{Question, wait};
use super::{Client, Failure, known, reply};
use crate::api::{Header, LeaseTime};
use crate::base::LeaseId;
use crate::base::codec::base64;
use crate::base::time::{Nanos, SECOND};
use crate::cli::output::{self, Format, Unsupported};
use crate::cli::{Console, go};
use crate::io::Clock;
use crate::io::os::OsClock;

impl Client<'_> {
    pub(super) fn lease(&self, lease: &Lease, console: &mut Console) -> Result<(), Failure> {
        match lease {
            Lease::Grant(LeaseWords { words }) => {
                let ttl_s = ttl(words)?;
                let question = Question::write(words_of(&["GRANT", &ttl_s.to_string()]));
                let (header, reply) = self.ask(&question).map_err(|why| failed("grant", why))?;
                let (id, ttl_s) = known(reply::lease_granted(&reply), "LEASE GRANT")?;
                console.print(&granted(&header, id, ttl_s, self.options.format)?);
            }
            Lease::Revoke(LeaseWords { words }) => {
                let id = id(words, "lease revoke command needs 1 argument")?;
                let question = Question::write(words_of(&["REVOKE", &id.to_string()]));
                let (header, reply) = self.ask(&question).map_err(|why| failed("revoke", why))?;
                known(reply::ok(&reply), "LEASE REVOKE")?;
                console.print(&revoked(&header, id, self.options.format)?);
            }
            Lease::Timetolive(LeaseTimeToLive { words, keys }) => {
                let id = id(words, "lease timetolive command needs lease ID as argument")?;
                let mut words = words_of(&["TTL", &id.to_string()]);
                if *keys == Some(true) {
                    words.push(b"KEYS".to_vec());
                }
                let (header, reply) = self.ask(&Question::read(words))?;
                let (time, keys_found) = known(reply::lease_ttl(&reply), "LEASE TTL")?;
                let keys = (*keys == Some(true)).then_some(&keys_found[..]);
                console.print(&time_to_live(&header, id, time, keys, self.options.format)?);
            }
            Lease::List(_) => {
                let (header, reply) = self.ask(&Question::read(words_of(&["LIST"])))?;
                let ids = known(reply::leases(&reply), "LEASE LIST")?;
                console.print(&list(&header, &ids, self.options.format)?);
            }
            Lease::KeepAlive(LeaseKeepAlive { words, once }) => {
                let id = id(words, "lease keep-alive command needs lease ID as argument")?;
                return if *once == Some(true) {
                    self.keep_once(id, console)
                } else {
                    self.keep_alive(id, console)
                };
            }
        }
        Ok(())
    }

    /// None: there is no such lease.
    fn renew(&self, id: LeaseId) -> Result<(Header, Option<u64>), Failure> {
        // To renew twice is to renew.
        let (header, reply) = self.ask(&Question::read(words_of(&["KEEPALIVE", &id.to_string()])))?;
        let ttl_s = known(reply::lease_kept(&reply), "LEASE KEEPALIVE")?;
        Ok((header, (ttl_s > 0).then_some(ttl_s)))
    }

    fn keep_once(&self, id: LeaseId, console: &mut Console) -> Result<(), Failure> {
        match self.renew(id) {
            Ok((header, Some(ttl_s))) => {
                console.print(&kept(&header, id, ttl_s, self.options.format)?);
                Ok(())
            }
            Ok((_, None)) => Err(Failure::Connection("etcdserver: requested lease not found".into())),
            Err(why) => Err(Failure::Connection(why.to_string())),
        }
    }

    /// Until it is gone. Servers that do not answer are asked again as long as it may live.
    fn keep_alive(&self, id: LeaseId, console: &mut Console) -> Result<(), Failure> {
        let mut lives_until = None;
        loop {
            let asked = OsClock.now();
            match self.renew(id) {
                Ok((header, Some(ttl_s))) => {
                    console.print(&kept(&header, id, ttl_s, self.options.format)?);
                    lives_until = Some(asked + Nanos::from(ttl_s).saturating_mul(SECOND));
                    wait(ttl_s.saturating_mul(SECOND) / 3);
                }
                Ok((_, None)) => break,
                Err(why) if why.cause().is_none() => return Err(why),
                Err(why) => match lives_until {
                    None => return Err(why),
                    Some(until) if OsClock.now() >= until => break,
                    Some(_) => console.complain(&format!("Warning: {}", why.cause().unwrap_or_default())),
                },
            }
        }
        // In other formats it would be a line that is none of theirs.
        if self.options.format == Format::Simple {
            console.print(format!("lease {id:016x} expired or revoked.\n").as_bytes());
        }
        Ok(())
    }
}

fn words_of(words: &[&str]) -> Vec<Vec<u8>> {
    std::iter::once("LEASE").chain(words.iter().copied()).map(|word| word.as_bytes().to_vec()).collect()
}

fn failed(what: &str, why: Failure) -> Failure {
    Failure::Usage(format!("failed to {what} lease ({why})"))
}

fn ttl(words: &[OsString]) -> Result<i64, Failure> {
    let [word] = words else {
        return Err(Failure::BadArguments("lease grant command needs TTL argument".into()));
    };
    let ttl_s = go::parse_int(&word.to_string_lossy(), 10)
        .map_err(|why| Failure::BadArguments(format!("bad TTL ({why})")))?;
    // The line protocol has no word for the last one, which is as short as all below zero.
    Ok(ttl_s.max(-i64::MAX))
}

fn id(words: &[OsString], usage: &str) -> Result<LeaseId, Failure> {
    let [word] = words else { return Err(Failure::BadArguments(usage.into())) };
    let id = go::parse_int(&word.to_string_lossy(), 16)
        .map_err(|why| Failure::BadArguments(format!("bad lease ID arg ({why}), expecting ID in Hex")))?;
    // The protocol has no negative numbers, and no lease has one.
    if id < 0 { Err(Failure::Usage("etcdserver: requested lease not found".into())) } else { Ok(id) }
}

// ---- Formats

fn only(format: Format, simple: String, json: String, fields: String) -> Result<Vec<u8>, Unsupported> {
    match format {
        Format::Simple => Ok(simple.into_bytes()),
        Format::Json => Ok(json.into_bytes()),
        Format::Fields => Ok(fields.into_bytes()),
        Format::Table => Err(output::no_table()),
        Format::Protobuf => Err(output::no_protobuf()),
    }
}

fn granted(header: &Header, id: LeaseId, ttl_s: u64, format: Format) -> Result<Vec<u8>, Unsupported> {
    only(
        format,
        format!("lease {id:016x} granted with TTL({ttl_s}s)\n"),
        format!("{{{},\"ID\":{id},\"TTL\":{ttl_s},\"Error\":\"\"}}\n", output::json_header_fields(header)),
        format!("{}\"ID\" : {id}\n\"TTL\" : {ttl_s}\n", output::fields_header(header)),
    )
}

fn revoked(header: &Header, id: LeaseId, format: Format) -> Result<Vec<u8>, Unsupported> {
    only(
        format,
        format!("lease {id:016x} revoked\n"),
        format!("{{\"header\":{{{}}}}}\n", output::json_header_fields(header)),
        output::fields_header(header),
    )
}

fn kept(header: &Header, id: LeaseId, ttl_s: u64, format: Format) -> Result<Vec<u8>, Unsupported> {
    only(
        format,
        format!("lease {id:016x} keepalived with TTL({ttl_s})\n"),
        format!("{{{},\"ID\":{id},\"TTL\":{ttl_s}}}\n", output::json_header_fields(header)),
        format!("{}\"ID\" : {id}\n\"TTL\" : {ttl_s}\n", output::fields_header(header)),
    )
}

/// `keys`: None if nobody asked for them.
fn time_to_live(
    header: &Header,
    id: LeaseId,
    time: Option<LeaseTime>,
    keys: Option<&[Vec<u8>]>,
    format: Format,
) -> Result<Vec<u8>, Unsupported> {
    if format == Format::Simple {
        return Ok(simple_time_to_live(id, time, keys));
    }
    let granted_s = time.unwrap_or_default().granted_s;
    let ttl_s = time.map_or(-1, |time| time.remaining_s.cast_signed());
    let keys = keys.unwrap_or_default();
    let coded: Vec<String> = keys.iter().map(|key| format!("\"{}\"", base64(key))).collect();
    let list = if coded.is_empty() { "null".into() } else { format!("[{}]", coded.join(",")) };
    let mut fields = output::fields_header(header);
    let _ = writeln!(fields, "\"ID\" : {id}\n\"TTL\" : {ttl_s}\n\"GrantedTTL\" : {granted_s}");
    for key in keys {
        let _ = writeln!(fields, "\"Key\" : {}", go::quote(key));
    }
    let header = output::json_header_fields(header);
    let json =
        format!("{{{header},\"id\":{id},\"ttl\":{ttl_s},\"granted-ttl\":{granted_s},\"keys\":{list}}}\n");
    only(format, String::new(), json, fields)
}

fn simple_time_to_live(id: LeaseId, time: Option<LeaseTime>, keys: Option<&[Vec<u8>]>) -> Vec<u8> {
    let Some(LeaseTime { granted_s, remaining_s }) = time else {
        return format!("lease {id:016x} already expired\n").into_bytes();
    };
    let mut line =
        format!("lease {id:016x} granted with TTL({granted_s}s), remaining({remaining_s}s)").into_bytes();
    if let Some(keys) = keys {
        line.extend_from_slice(b", attached keys([");
        line.extend_from_slice(&keys.join(&b' '));
        line.extend_from_slice(b"])");
    }
    line.push(b'\n');
    line
}

fn list(header: &Header, ids: &[LeaseId], format: Format) -> Result<Vec<u8>, Unsupported> {
    let each = |show: &dyn Fn(&LeaseId) -> String| ids.iter().map(show).collect::<Vec<_>>();
    only(
        format,
        format!("found {} leases\n", ids.len()) + &each(&|id| format!("{id:016x}\n")).concat(),
        format!(
            "{{{},\"leases\":[{}]}}\n",
            output::json_header_fields(header),
            each(&|id| format!("{{\"id\":{id}}}")).join(",")
        ),
        output::fields_header(header) + &each(&|id| format!("\"ID\" : {id}\n")).concat(),
    )
}
