//! The command line: argv becomes an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

pub fn run(_argv: Vec<OsString>) -> ExitCode {
    ExitCode::SUCCESS
}
