//! `pawlutl`: looks at the files of a server that is not running. Nothing is repaired here: what a start can
//! mend by itself (a torn tail that nobody was told of) it mends, and all else needs a person or a peer.

use std::any::Any;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::{Console, Role, version};
use crate::base::{Error, Result};
use crate::io::Disk;
use crate::io::os::OsDisk;
use crate::store::{self, Store};
use crate::wal;

#[derive(Debug, Parser)]
#[command(name = "pawlutl", about = "Looks at the files of a stopped Pawl server")]
#[command(infer_subcommands = true, disable_version_flag = true, arg_required_else_help = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads every byte of the log and the tree and lists what is wrong
    Verify(Files),
    /// Prints a digest of the content: equal on members that have applied the same entries
    Hash(Files),
    /// Prints the version of this tool
    Version,
}

/// Where a server keeps its files.
#[derive(Debug, Args)]
struct Files {
    /// The server's --data-dir
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The server's --wal-dir, if it has one
    #[arg(long, value_name = "DIR")]
    wal_dir: Option<PathBuf>,
}

/// etcdutl's code for a command line that makes no sense.
const EXIT_BAD_ARGUMENTS: u8 = 128;

/// Runs one command; the exit code: 0 for good news, 1 for bad.
pub fn run(program: &str, words: &[OsString], console: &mut Console) -> u8 {
    let argv = std::iter::once(OsString::from(program)).chain(words.iter().cloned());
    let command = Line::command().bin_name(program.to_owned());
    let line =
        command.try_get_matches_from(argv).and_then(|mut matches| Line::from_arg_matches_mut(&mut matches));
    let command = match line {
        Ok(Line { command }) => command,
        Err(error) if !error.use_stderr() || error.kind() == HELP_INSTEAD => {
            console.print(format!("{}\n", error.to_string().trim_end()).as_bytes());
            return 0;
        }
        Err(error) => {
            console.complain(&complaint(&error.to_string()));
            return EXIT_BAD_ARGUMENTS;
        }
    };
    let done = match command {
        Command::Verify(files) => verify(&OsDisk, &files, console),
        Command::Hash(files) => hash(&OsDisk, &files, console),
        Command::Version => {
            console.print(version::text(Role::Offline, program).as_bytes());
            return 0;
        }
    };
    match done {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            console.complain(&format!("Error: {error}"));
            1
        }
    }
}

const HELP_INSTEAD: clap::error::ErrorKind = clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

/// clap's finding as one line, without its advice.
fn complaint(text: &str) -> String {
    let finding = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = finding.trim_start_matches("error: ").split_whitespace().collect();
    format!("Error: {}", words.join(" "))
}

impl Files {
    fn member_dir(&self) -> PathBuf {
        self.data_dir.join("member")
    }

    fn tree(&self) -> PathBuf {
        self.member_dir().join("tree")
    }

    fn wal_dir(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.member_dir().join("wal"))
    }

    /// Keeps a server from starting meanwhile, and refuses where one runs. Makes no lock file where there
    /// is none: then no server has ever run here.
    fn lock<D: Disk>(&self, disk: &D) -> Result<Option<Box<dyn Any + Send>>> {
        let tree = self.tree();
        if !exists(disk, &tree)? {
            return Err(Error::Refused(format!(
                "{} is not there: not the directory of a server",
                tree.display()
            )));
        }
        let path = self.member_dir().join("lock");
        if !exists(disk, &path)? {
            return Ok(None);
        }
        match disk.lock(&path) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(Error::Refused(format!("{} is in use by a running server", self.data_dir.display())))
            }
            Err(error) => Err(Error::io("cannot lock", &path, error)),
        }
    }
}

fn exists<D: Disk>(disk: &D, path: &Path) -> Result<bool> {
    disk.exists(path).map_err(|error| Error::io("cannot look for", path, error))
}

/// True if everything is sound.
fn verify<D: Disk>(disk: &D, files: &Files, console: &mut Console) -> Result<bool> {
    let _lock = files.lock(disk)?;
    let (tree_path, wal_dir) = (files.tree(), files.wal_dir());
    let log = wal::check(disk, &wal_dir)?;
    let tree = store::check(disk, &tree_path)?;

    let mut say = |line: String| console.print(format!("{line}\n").as_bytes());
    say(format!(
        "log  {}: {} segments, {} records, entries behind {} up to {}",
        wal_dir.display(),
        log.segments,
        log.records,
        log.base,
        log.last
    ));
    say(format!(
        "tree {}: revision {}, applied index {}, {} keys, {} versions",
        tree_path.display(),
        tree.revision,
        tree.applied_index,
        tree.keys,
        tree.versions
    ));
    let mut damages = 0;
    for finding in &log.findings {
        let word = if finding.harmless { "note" } else { "DAMAGE" };
        damages += usize::from(!finding.harmless);
        say(format!("{word} {} at offset {}: {}", finding.file.display(), finding.offset, finding.what));
    }
    for finding in &tree.findings {
        damages += 1;
        say(format!("DAMAGE {}: {finding}", tree_path.display()));
    }
    // A log that ends before the tree is what an interrupted installation of a snapshot leaves, and the next
    // start deals with it. A log that begins behind what the tree has is a hole that nothing fills.
    if log.segments == 0 && tree.applied_index > 0 {
        damages += 1;
        say(format!(
            "DAMAGE {}: there is no log, but the tree has applied entries up to {}: the log was lost, and with it the vote",
            wal_dir.display(),
            tree.applied_index
        ));
    }
    if damages == 0 && log.base.index > tree.applied_index {
        damages += 1;
        say(format!(
            "DAMAGE {}: the log begins behind entry {}, the tree has applied {}: entries between are missing",
            wal_dir.display(),
            log.base.index,
            tree.applied_index
        ));
    }
    say(if damages == 0 { "sound".into() } else { format!("{damages} damages") });
    Ok(damages == 0)
}

/// Of what the tree file holds: entries that are only in the log are not part of it, so members must be
/// compared at the same applied index.
fn hash<D: Disk>(disk: &D, files: &Files, console: &mut Console) -> Result<bool> {
    let _lock = files.lock(disk)?;
    let store = Store::open(disk, &files.tree())?;
    let line = format!(
        "{:016x}, revision {}, applied {}\n",
        store.content_hash()?,
        store.revision(),
        store.applied()
    );
    console.print(line.as_bytes());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(words: &[&str]) -> (u8, String, String) {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = run("pawlutl", &words, &mut Console { out: &mut out, err: &mut err });
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_directory_that_is_none_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        for command in ["verify", "hash"] {
            let (exit, out, err) = call(&[command, "--data-dir", path]);
            assert_eq!((exit, out.as_str()), (1, ""));
            assert_eq!(
                err,
                format!("Error: {path}/member/tree is not there: not the directory of a server\n")
            );
        }
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
    }

    #[test]
    fn complaints_are_one_line() {
        for (words, line) in [
            (
                &["verify"][..],
                "Error: the following required arguments were not provided: --data-dir <DIR>\n",
            ),
            (&["bogus"], "Error: unrecognized subcommand 'bogus'\n"),
            (&["hash", "--data-dri", "x"], "Error: unexpected argument '--data-dri' found\n"),
        ] {
            assert_eq!(call(words), (128, String::new(), line.into()));
        }
        let (exit, out, _) = call(&[]);
        assert!(exit == 0 && out.contains("Usage: pawlutl"), "{out}");
    }
}
