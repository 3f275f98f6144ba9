//! `pawld` without a subcommand: check everything, then serve.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::path::Path;

use super::values::{Environment, Refusal, Values};
use super::{Console, Role, help, logging, names, rules, version};
use crate::base::time::{Nanos, SECOND};
use crate::io::Disk;
use crate::io::os::OsDisk;
use crate::net;

/// As long as etcd tries to resolve its own peer URLs.
const LOOKUP_PATIENCE: Nanos = 30 * SECOND;

/// Runs the server until it stops; the exit code.
pub fn run(program: &str, words: &[OsString], environment: &Environment, console: &mut Console) -> u8 {
    let start = match prepare(program, words, environment, console) {
        Ok(start) => start,
        Err(Refusal { exit, line }) => {
            console.complain(&format!("{program}: {line}"));
            return exit;
        }
    };
    match start {
        Start::Print(text) => {
            console.print(text.as_bytes());
            0
        }
        Start::Serve { settings, log_level, warnings } => {
            logging::start(&log_level);
            announce(&settings, &warnings);
            match net::serve(&settings) {
                Ok(()) => 0,
                Err(error) => {
                    log::error!("stopped: {error}");
                    1
                }
            }
        }
    }
}

enum Start {
    Print(String),
    Serve { settings: Box<net::Settings>, log_level: String, warnings: Vec<String> },
}

fn prepare(
    program: &str,
    words: &[OsString],
    environment: &Environment,
    console: &mut Console,
) -> Result<Start, Refusal> {
    let mut values = Values::read(words, environment)?;
    if values.bool("help") {
        return Ok(Start::Print(help::server(program)));
    }
    if values.bool("version") {
        return Ok(Start::Print(version::text(Role::Server, program)));
    }
    let settings = Box::new(rules::settings(&mut values, &mut ThisMachine { program, console })?);
    Ok(Start::Serve { settings, log_level: values.text("log-level").into(), warnings: values.warnings })
}

struct ThisMachine<'a, 'b> {
    program: &'a str,
    console: &'a mut Console<'b>,
}

impl rules::Machine for ThisMachine<'_, '_> {
    /// Some containers have no IPv6 at all; there `localhost` means 127.0.0.1 alone.
    fn ipv6_loopback(&self) -> bool {
        UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
    }

    fn has_data(&self, data_dir: &Path, wal_dir: Option<&Path>) -> bool {
        OsDisk.exists(&net::Layout::new(data_dir, wal_dir).tree()).unwrap_or(false)
    }

    fn lookup(&mut self, host: &str) -> Result<Vec<IpAddr>, String> {
        names::lookup_patiently(host, LOOKUP_PATIENCE, &mut |line| {
            self.console.complain(&format!("{}: {line}", self.program));
        })
    }
}

fn announce(settings: &net::Settings, warnings: &[String]) {
    let pairs: Vec<String> =
        settings.effective.iter().map(|(name, value)| logging::pair(name, value)).collect();
    log::info!("starting version={} {}", version::PAWL, pairs.join(" "));
    for warning in warnings {
        log::warn!("{warning}");
    }
}
