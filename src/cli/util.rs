//! `pawlutl`: looks at the files of a server that is not running. Nothing is repaired here: what a start can
//! mend by itself (a torn tail that nobody was told of) it mends, and all else needs a person or a peer.

use std::any::Any;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::{Console, Role, version};
use crate::base::{Error, Index, Result};
use crate::io::os::OsDisk;
use crate::io::{Disk, File, Open};
use crate::net::Layout;
use crate::node::FileCheck;
use crate::store::{self, Store, StreamSummary};
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
    /// Looks at a snapshot that was saved to a file
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Prints the version of this tool
    Version,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Reads every byte and checks both checksums; prints the digest, the revision, the entry, and how many keys there are
    Status {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
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
        Command::Snapshot(SnapshotCommand::Status { file }) => snapshot_status(&OsDisk, &file, console),
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
    fn layout(&self) -> Layout {
        Layout::new(&self.data_dir, self.wal_dir.as_deref())
    }

    /// Keeps a server from starting meanwhile, and refuses where one runs. Makes no lock file where there
    /// is none: then no server has ever run here.
    fn lock<D: Disk>(&self, disk: &D) -> Result<Option<Box<dyn Any + Send>>> {
        let tree = self.layout().tree();
        if !exists(disk, &tree)? {
            return Err(Error::Refused(format!(
                "{} is not there: not the directory of a server",
                tree.display()
            )));
        }
        let path = self.layout().lock();
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

/// True if everything is sound. Damage in one part does not keep the other from being read.
fn verify<D: Disk>(disk: &D, files: &Files, console: &mut Console) -> Result<bool> {
    let _lock = files.lock(disk)?;
    let mut damages = 0;
    let log = verify_log(disk, &files.layout().wal_dir, &mut damages, console)?;
    let applied_index = verify_tree(disk, &files.layout().tree(), &mut damages, console)?;
    // A log that ends before the tree is what an interrupted installation of a snapshot leaves, and the next
    // start deals with it. A log that begins behind what the tree has is a hole that nothing fills.
    if let (Some(LogExtent::None), Some(applied)) = (log, applied_index)
        && applied > 0
    {
        damages += 1;
        let what = format!("there is no log, but the tree has applied entry {applied}");
        say(console, format!("DAMAGE {what}: the log is lost, and with it the vote"));
    }
    if let (Some(LogExtent::Behind(base)), Some(applied)) = (log, applied_index)
        && base > applied
    {
        damages += 1;
        let what = "the log begins behind entry";
        say(
            console,
            format!("DAMAGE {what} {base}, the tree has applied {applied}: entries between are missing"),
        );
    }
    say(
        console,
        if damages == 0 { "sound".into() } else { format!("not sound: {damages} findings of damage") },
    );
    Ok(damages == 0)
}

fn say(console: &mut Console, line: String) {
    console.print(format!("{line}\n").as_bytes());
}

/// Which entries a log holds.
#[derive(Clone, Copy)]
enum LogExtent {
    /// There is not one segment.
    None,
    /// Those behind this index.
    Behind(Index),
}

/// What the log holds, if it could be read.
fn verify_log<D: Disk>(
    disk: &D,
    dir: &Path,
    damages: &mut usize,
    console: &mut Console,
) -> Result<Option<LogExtent>> {
    let log = match wal::check(disk, dir) {
        Ok(log) => log,
        Err(error) => return unreadable(error, damages, console),
    };
    let wal::Report { segments, records, base, last, .. } = &log;
    let dir = dir.display();
    say(
        console,
        format!("log  {dir}: {segments} segments, {records} records, entries behind {base} up to {last}"),
    );
    for finding in &log.findings {
        let word = if finding.harmless { "note" } else { "DAMAGE" };
        *damages += usize::from(!finding.harmless);
        let file = finding.file.display();
        say(console, format!("{word} {file} at offset {}: {}", finding.offset, finding.what));
    }
    Ok(Some(if *segments == 0 { LogExtent::None } else { LogExtent::Behind(base.index) }))
}

/// The index of the last entry that the tree has applied, if it could be read.
fn verify_tree<D: Disk>(
    disk: &D,
    path: &Path,
    damages: &mut usize,
    console: &mut Console,
) -> Result<Option<Index>> {
    let tree = match store::check(disk, path) {
        Ok(tree) => tree,
        Err(error) => return unreadable(error, damages, console),
    };
    let store::Report { findings, revision, applied_index, changes, keys } = tree;
    let path = path.display();
    if findings.is_empty() {
        let content = format!("{keys} keys, {changes} changes");
        say(console, format!("tree {path}: revision {revision}, applied index {applied_index}, {content}"));
        return Ok(Some(applied_index));
    }
    *damages += findings.len();
    for finding in &findings {
        say(console, format!("DAMAGE {path}: {finding}"));
    }
    Ok(None)
}

/// Damage so deep that the check could not begin or go on is a finding like others.
fn unreadable<T>(error: Error, damages: &mut usize, console: &mut Console) -> Result<Option<T>> {
    let Error::Corrupt(damage) = error else { return Err(error) };
    *damages += 1;
    say(console, format!("DAMAGE {damage}"));
    Ok(None)
}

/// Of what the tree file holds: entries that are only in the log are not part of it, so members must be
/// compared at the same applied index.
fn hash<D: Disk>(disk: &D, files: &Files, console: &mut Console) -> Result<bool> {
    let _lock = files.lock(disk)?;
    let store = Store::open(disk, &files.layout().tree())?;
    let line = format!(
        "{:016x}, revision {}, applied {}\n",
        store.content_hash()?,
        store.revision(),
        store.applied()
    );
    console.print(line.as_bytes());
    Ok(true)
}

/// Read at once.
const PIECE_BYTES: usize = 256 << 10;

fn snapshot_status<D: Disk>(disk: &D, path: &Path, console: &mut Console) -> Result<bool> {
    let file = disk.open(path, Open::Read).map_err(|error| Error::io("cannot open", path, error))?;
    let mut check = FileCheck::default();
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    let bad = |found: String| Error::Refused(format!("{} {found}: it is no sound snapshot", path.display()));
    loop {
        let length =
            file.read_at(bytes, &mut piece).map_err(|error| Error::io("cannot read", path, error))?;
        if length == 0 {
            break;
        }
        check.take(&piece[..length]).map_err(bad)?;
        bytes += length as u64;
    }
    let StreamSummary { digest, revision, applied, keys, .. } = check.finish().map_err(bad)?;
    let line = format!("{digest:016x}, revision {revision}, applied {applied}, {keys} keys, {bytes} bytes\n");
    console.print(line.as_bytes());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Member;

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

    /// The directory of a member that has just been made.
    fn new_member(dir: &Path) -> Files {
        let files = Files { data_dir: dir.to_path_buf(), wal_dir: None };
        OsDisk.create_dir_all(&files.layout().member_dir).unwrap();
        OsDisk.create_dir_all(&files.layout().wal_dir).unwrap();
        let identity = store::Identity { cluster: 7, member: 1 };
        let member = Member { id: 1, name: "n1".into(), ..Member::default() };
        drop(
            Store::create(&OsDisk, &files.layout().tree(), identity, &[member], store::Options::new(9))
                .unwrap(),
        );
        let options = wal::Options { segment_bytes: 4096, cluster: 7, member: 1, salt: 3 };
        drop(wal::open(&OsDisk, &files.layout().wal_dir, options, 0).unwrap());
        files
    }

    /// Flips a bit of every page behind the meta slots: which of them are in use is the tree's business.
    fn damage(path: &Path) {
        let file = OsDisk.open(path, Open::Write).unwrap();
        let mut byte = [0];
        for offset in (8192..file.len_bytes().unwrap()).step_by(4096) {
            file.read_at(offset + 20, &mut byte).unwrap();
            file.write_at(offset + 20, &[byte[0] ^ 0x40]).unwrap();
        }
    }

    #[test]
    fn a_new_member_is_sound_and_a_flipped_bit_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let files = new_member(dir.path());
        let path = dir.path().to_str().unwrap();
        let (exit, out, err) = call(&["verify", "--data-dir", path]);
        assert!(exit == 0 && out.ends_with("\nsound\n") && err.is_empty(), "{exit} {out} {err}");
        let (exit, out, _) = call(&["hash", "--data-dir", path]);
        assert!(exit == 0 && out.ends_with(", revision 1, applied 0@0\n"), "{out}");

        damage(&files.layout().tree());
        let (exit, out, err) = call(&["verify", "--data-dir", path]);
        assert!(exit == 1 && err.is_empty(), "{exit} {out} {err}");
        let tree = format!("\nDAMAGE {}", files.layout().tree().display());
        assert!(out.starts_with("log  ") && out.contains(&tree) && out.contains("\nnot sound: "), "{out}");
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = new_member(dir.path());
        let path = dir.path().to_str().unwrap();
        let _server = OsDisk.lock(&files.layout().lock()).unwrap();
        for command in ["verify", "hash"] {
            let (exit, out, err) = call(&[command, "--data-dir", path]);
            assert_eq!((exit, out), (1, String::new()));
            assert_eq!(err, format!("Error: {path} is in use by a running server\n"));
        }
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
