//! The command line: argv and environment become an exit code.
//!
//! One binary, several names. The name it is called by decides what it is: `pawld` a server, `pawlctl` a
//! client, `pawlutl` the offline tool, and `etcd`, `etcdctl`, `etcdutl` the same three for scripts that know
//! nothing of Pawl. Under any other name it is `pawld`. The server takes the others as subcommands.
//!
//! ```text
//!   argv, environment --> values --> rules --> net::Settings --> net::serve
//!                         one table            all checked, nothing created yet
//!
//!   argv, environment --> client: words of the line protocol --> a server --> output, exit code
//! ```
//!
//! What is left out: configuration files, TLS, and the client's commands for what servers do not do yet.
//! Each of them is refused by name; none is passed over.

mod bench;
mod check;
mod client;
mod flag;
mod flag_table;
mod forms;
mod go;
mod help;
mod logging;
mod names;
mod output;
mod progress;
mod resp;
mod rules;
mod server;
#[cfg(feature = "sim")]
mod sim;
mod url;
mod util;
mod values;
mod version;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use values::Environment;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
    Offline,
}

/// Where people read. A reader that has gone away (`pawlctl get ... | head -1`) is no error of ours.
pub struct Console<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
}

impl Console<'_> {
    pub fn print(&mut self, bytes: &[u8]) {
        let _ = self.out.write_all(bytes).and_then(|()| self.out.flush());
    }

    /// One line on standard error.
    pub fn complain(&mut self, line: &str) {
        let _ = writeln!(self.err, "{}", line.trim_end());
    }
}

/// Runs what `argv` asks for.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    // Variables that are not UTF-8 cannot be meant for us.
    let environment: Environment = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    let mut console = Console { out: &mut std::io::stdout().lock(), err: &mut std::io::stderr() };
    let program = argv.first().map_or_else(|| "pawld".into(), file_name);
    let words = argv.get(1..).unwrap_or_default();
    ExitCode::from(dispatch(&program, words, &environment, &mut console))
}

fn file_name(path: &OsString) -> String {
    std::path::Path::new(path)
        .file_name()
        .map_or_else(|| "pawld".into(), |name| name.to_string_lossy().into_owned())
}

fn dispatch(program: &str, words: &[OsString], environment: &Environment, console: &mut Console) -> u8 {
    match program {
        "pawlctl" | "etcdctl" => return client::run(program, words, environment, console),
        "pawlutl" | "etcdutl" => return util::run(program, words, console),
        _ => {}
    }
    let rest = words.get(1..).unwrap_or_default();
    match words.first().and_then(|word| word.to_str()) {
        Some("ctl") => client::run(&format!("{program} ctl"), rest, environment, console),
        Some("util") => util::run(&format!("{program} util"), rest, console),
        Some("bench") => bench::run(&format!("{program} bench"), rest, console),
        Some("check") => check::run(&format!("{program} check"), rest, console),
        #[cfg(feature = "sim")]
        Some("sim") => sim::run(&format!("{program} sim"), rest, console),
        Some("version") => {
            console.print(version::text(Role::Server, program).as_bytes());
            0
        }
        Some("help") => {
            console.print(help::server(program).as_bytes());
            0
        }
        Some(word @ ("gateway" | "grpc-proxy")) => {
            console.complain(&format!("{program}: {word} is not available yet"));
            1
        }
        _ => server::run(program, words, environment, console),
    }
}

/// Set when the process is asked to end.
fn interrupted() -> std::io::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(argv: &str) -> (u8, String, String) {
        let mut argv = argv.split_whitespace();
        let program = argv.next().unwrap();
        let words: Vec<OsString> = argv.map(OsString::from).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit =
            dispatch(program, &words, &Environment::new(), &mut Console { out: &mut out, err: &mut err });
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn the_name_decides() {
        let version = |argv: &str| call(argv).1.lines().next().unwrap().to_owned();
        assert_eq!(version("pawld --version"), format!("pawld version: {}", version::PAWL));
        assert_eq!(version("pawld version"), version("pawld -version"));
        assert_eq!(version("etcd --version"), format!("etcd Version: {}", version::etcd_compatible()));
        assert_eq!(version("pawlctl version"), format!("pawlctl version: {}", version::PAWL));
        assert_eq!(version("pawld ctl version"), format!("pawld ctl version: {}", version::PAWL));
        assert_eq!(version("etcdctl version"), format!("etcdctl version: {}", version::etcd_compatible()));
        assert_eq!(version("etcdutl version"), format!("etcdutl version: {}", version::etcd_compatible()));
        assert_eq!(version("pawld util version"), format!("pawld util version: {}", version::PAWL));
    }

    #[test]
    fn a_refusal_is_one_line_and_a_code() {
        for (argv, exit, line) in [
            ("pawld --nam x", 2, "pawld: unknown flag --nam; did you mean --name?\n"),
            ("etcd serve", 1, "etcd: 'serve' is not a valid flag\n"),
            (
                "pawld --election-timeout 100",
                1,
                "pawld: --election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]\n",
            ),
            ("etcd gateway start", 1, "etcd: gateway is not available yet\n"),
        ] {
            assert_eq!(call(argv), (exit, String::new(), line.into()));
        }
    }

    #[test]
    fn help_goes_to_standard_output() {
        for argv in ["pawld --help", "pawld -h", "pawld help", "pawld --name=x --help"] {
            let (exit, out, err) = call(argv);
            assert!(exit == 0 && out.starts_with("Usage:\n\n  pawld [flags]") && err.is_empty(), "{argv}");
        }
    }
}
