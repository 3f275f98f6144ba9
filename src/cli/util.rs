//! `pawlutl`: looks at the files of a server that is not running.

use std::ffi::OsString;

use super::{Console, Role, version};

const USAGE: &str = "commands:
  version    print the version
";

/// Runs one command; the exit code.
pub fn run(program: &str, words: &[OsString], console: &mut Console) -> u8 {
    match words.first().and_then(|word| word.to_str()) {
        Some("version" | "--version") => {
            console.print(version::text(Role::Offline, program).as_bytes());
            0
        }
        _ => {
            console.print(USAGE.as_bytes());
            0
        }
    }
}
