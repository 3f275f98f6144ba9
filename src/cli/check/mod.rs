//! `pawld check disk`: whether a disk is good enough for the log of a store like this, asked of the disk itself.
//!
//! The question is fio's, with the answer read out. What a member does to its disk is done here by the same calls
//! (`io::os`): small records in a row with an fdatasync behind each, batches of many as a group commit makes them, a log
//! and a tree that are read back; and all of it timed as fio times it, so that a figure here can be held against fio's.
//!
//! ```text
//!   options --> jobs --> Job::run on a scratch file --> figures --> verdict --> report for people, or fio's JSON
//!               (plan)   (writes, syncs, reads, each timed)         (+ place: file system, mount, device)
//! ```
//!
//! Nothing that was there is touched: files are made under names that nothing has, and go when their job ends, also when
//! somebody interrupts it. (A kill -9 leaves them: `pawl-check-disk-*.tmp`.) Syncs are the disk's word. One that lies, and holds bytes in
//! a cache without power, cannot be found out by asking it; what can be told, too fast a sync and a mount without barriers,
//! is warned of.
//!
//! What is left out: direct and asynchronous I/O, which no member uses; several processes; the seconds after a disk's cache is
//! full (give `--size` in gigabytes for that).

mod fio;
mod place;
mod report;
mod verdict;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use self::place::Place;
use super::progress::Progress;
use super::{Console, interrupted};
use crate::base::time::{Nanos, SECOND};
use crate::base::{Error, Result};
use crate::io::os::{OsClock, OsDisk, OsEntropy};
use crate::io::{Clock, Entropy};
use crate::measure::Scratch;
use crate::measure::disk::{Access, Bench, Figures, Job, Room};

#[derive(Debug, Parser)]
#[command(name = "pawld check", about = "Checks what a server stands on")]
#[command(disable_version_flag = true, arg_required_else_help = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures a disk as a member's log and tree use it, and says which size of cluster it carries.
    ///
    /// Exit code 0: fit for one; 1: for none, or the disk could not be measured; 130: interrupted.
    Disk(Options),
}

#[derive(Clone, Debug, Args)]
struct Options {
    /// Where to measure: the server's --data-dir, or --wal-dir, or any directory on that disk
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Bytes of each file of the jobs called wal (fio: size; 4k, 22m, 1g)
    #[arg(long, value_name = "BYTES", default_value = "22m", value_parser = parsed_bytes)]
    size: u64,
    /// Bytes of a record of these jobs (fio: bs)
    #[arg(long, value_name = "BYTES", default_value = "2300", value_parser = parsed_bytes)]
    bs: u64,
    /// A sync after so many of these records; 0: none (fio: fdatasync)
    #[arg(long, value_name = "RECORDS", default_value_t = 1)]
    fdatasync: u64,
    /// No job lasts longer
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    runtime: u64,
    /// Threads of each job, each with a file of its own (fio: numjobs)
    #[arg(long, value_name = "THREADS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    numjobs: u64,
    /// Only these jobs, by name, with commas between
    #[arg(long, value_name = "JOBS", value_delimiter = ',')]
    only: Vec<String>,
    /// For people, or as fio writes it for programs
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Normal)]
    output_format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Normal,
    Json,
    Terse,
}

/// A block larger than this is no record of anything, and is held in memory.
const BLOCK_BYTES_MAX: u64 = 64 << 20;

/// Of the batches and of what is read: enough to see a disk's own speed, little enough to be over soon.
const BATCHES_BYTES: u64 = 22 << 20;
const READ_BYTES: u64 = 64 << 20;

/// Left free beside what is written.
const SPARE_BYTES: u64 = 1 << 20;

const EXIT_FAILED: u8 = 1;
const EXIT_BAD_ARGUMENTS: u8 = 2;
/// As a shell tells of a SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs `pawld check ...`.
pub fn run(program: &str, words: &[OsString], console: &mut Console) -> u8 {
    let argv = std::iter::once(OsString::from(program)).chain(words.iter().cloned());
    let command = Line::command().bin_name(program.to_owned());
    let line =
        command.try_get_matches_from(argv).and_then(|mut matches| Line::from_arg_matches_mut(&mut matches));
    let Command::Disk(options) = match line {
        Ok(Line { command }) => command,
        Err(error) if !error.use_stderr() => {
            console.print(error.to_string().as_bytes());
            return 0;
        }
        Err(error) => {
            console.complain(&error.to_string());
            return EXIT_BAD_ARGUMENTS;
        }
    };
    let jobs = match options.jobs() {
        Ok(jobs) => jobs,
        Err(why) => {
            console.complain(&format!("{program} disk: {why}"));
            return EXIT_BAD_ARGUMENTS;
        }
    };
    check(&options, &jobs, console).unwrap_or_else(|error| {
        console.complain(&format!("{program} disk: {error}"));
        EXIT_FAILED
    })
}

impl Options {
    /// What is to be run, in this order.
    fn jobs(&self) -> std::result::Result<Vec<Job>, String> {
        if self.bs == 0 || self.bs > BLOCK_BYTES_MAX || self.bs > self.size {
            return Err(format!(
                "--bs is {}; 1 to {BLOCK_BYTES_MAX} bytes are possible, and no more than --size, {}",
                self.bs, self.size
            ));
        }
        let all = self.all_jobs();
        if let Some(unknown) = self.only.iter().find(|name| all.iter().all(|job| job.name != **name)) {
            let names: Vec<&str> = all.iter().map(|job| job.name).collect();
            return Err(format!("there is no job {unknown:?}; there are {}", names.join(", ")));
        }
        let wanted = |job: &Job| self.only.is_empty() || self.only.iter().any(|name| name == job.name);
        Ok(all.into_iter().filter(wanted).collect())
    }

    fn all_jobs(&self) -> Vec<Job> {
        let threads = usize::try_from(self.numjobs).expect("it is 256 at most");
        let job = |name, about, access, block_bytes: u64, size_bytes, sync_every| {
            let block_bytes = usize::try_from(block_bytes).expect("it was checked");
            let runtime: Nanos = self.runtime * SECOND;
            Job { name, about, access, block_bytes, size_bytes, sync_every, runtime, threads }
        };
        let wal = |name, about, access| job(name, about, access, self.bs, self.size, self.fdatasync);
        let batch = |name, block_bytes| {
            let about = "a group commit of many requests in one write";
            job(name, about, Access::Write(Room::Filled), block_bytes, BATCHES_BYTES, 1)
        };
        let read = |name, about, access, block_bytes| job(name, about, access, block_bytes, READ_BYTES, 0);
        vec![
            wal(
                "wal",
                "records of a log in reserved room, as fio and etcd write them",
                Access::Write(Room::Reserved),
            ),
            wal("wal-growing", "the same at the end of a file that grows", Access::Write(Room::Growing)),
            wal(
                "wal-filled",
                "the same over durable zeroes, as Pawl's log does",
                Access::Write(Room::Filled),
            ),
            batch("batch-4k", 4 << 10),
            batch("batch-16k", 16 << 10),
            batch("batch-64k", 64 << 10),
            batch("batch-256k", 256 << 10),
            read("read-in-order", "a log that is read after a failure", Access::ReadInOrder, 1 << 20),
            read("read-at-random", "pages of a tree that are not in memory", Access::ReadAtRandom, 4 << 10),
            wal("wal-beside", "job wal-filled while a checkpoint writes", Access::WriteBeside(Room::Filled)),
        ]
    }
}

/// fio's way to write sizes: a number, and k, m or g for powers of 1024.
fn parsed_bytes(word: &str) -> std::result::Result<u64, String> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match word[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err("a number of bytes is expected, or one with k, m or g".to_owned()),
    };
    let count: u64 = digits.parse().map_err(|_| "a number of bytes is expected".to_owned())?;
    count.checked_mul(factor).ok_or_else(|| "that is more than any disk has".to_owned())
}

/// Measures, reports, and says what the exit code is.
fn check(options: &Options, jobs: &[Job], console: &mut Console) -> Result<u8> {
    let place = Place::of(&options.dir)?;
    let needed = jobs.iter().map(Job::room_bytes).max().unwrap_or_default() + SPARE_BYTES;
    if place.free_bytes < needed {
        let [needed, free] = [needed, place.free_bytes].map(|bytes| report::bytes(bytes as f64));
        return Err(Error::Refused(format!(
            "{} has {free} free, and {needed} are needed",
            place.dir.display()
        )));
    }
    if options.output_format == Format::Normal {
        console.print(report::place(&place).as_bytes());
    }
    let stop = interrupted().map_err(|e| Error::io("listen for signals in", &options.dir, e))?;
    let scratch = Scratch::new(OsDisk, &options.dir, std::process::id());
    let bench = Bench { scratch: &scratch, clock: OsClock, stop: &stop };
    let progress = Progress::new();
    let mut done = Vec::new();
    for job in jobs {
        let bar = progress.begin(job.name, job.size_bytes * job.threads as u64);
        let figures = job.run(&bench, OsEntropy.seed(), &|bytes| bar.inc(bytes));
        bar.finish_and_clear();
        if stop.load(Ordering::Relaxed) {
            drop(scratch);
            console.complain("interrupted; what was made is removed");
            return Ok(EXIT_INTERRUPTED);
        }
        let figures = figures?;
        match options.output_format {
            Format::Normal => console.print(format!("\n{}", report::job(job, &figures)).as_bytes()),
            Format::Terse => console.print(fio::terse(job, &figures).as_bytes()),
            Format::Json => {}
        }
        done.push((job.clone(), figures));
    }
    Ok(conclude(options.output_format, &place, &done, console))
}

fn conclude(format: Format, place: &Place, done: &[(Job, Figures)], console: &mut Console) -> u8 {
    let verdict = verdict::judge(place, done);
    let warnings = verdict::warnings(place, done);
    match format {
        Format::Normal => {
            console.print(format!("\n{}", report::verdict(verdict.as_ref(), &warnings)).as_bytes());
        }
        Format::Json => {
            let text = fio::json(place, done, verdict.as_ref(), &warnings, OsClock.wall_ms());
            console.print(text.as_bytes());
        }
        // One line a job, and no other: the exit code says the rest.
        Format::Terse => {}
    }
    if verdict.is_none_or(|verdict| verdict.passed()) { 0 } else { EXIT_FAILED }
}

#[cfg(test)]
mod tests {
    use super::verdict::REQUEST_BYTES;
    use super::*;

    fn options(argv: &str) -> std::result::Result<Options, String> {
        let words = ["check", "disk"].into_iter().chain(argv.split_whitespace());
        let Line { command: Command::Disk(options) } =
            Line::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(options)
    }

    fn names(argv: &str) -> Vec<&'static str> {
        options(argv).unwrap().jobs().unwrap().iter().map(|job| job.name).collect()
    }

    #[test]
    fn sizes_are_written_as_fio_writes_them() {
        for (word, bytes) in [("2300", 2_300), ("4k", 4_096), ("22m", 23_068_672), ("1G", 1 << 30), ("7b", 7)]
        {
            assert_eq!(parsed_bytes(word), Ok(bytes));
        }
        for word in ["", "m", "4x", "-1", "1.5m", "99999999999g", "18446744073709551616"] {
            assert!(parsed_bytes(word).is_err(), "{word}");
        }
    }

    #[test]
    fn the_default_is_the_pattern_of_a_log() {
        let jobs = options("").unwrap().jobs().unwrap();
        let wal = &jobs[0];
        assert_eq!((wal.block_bytes, wal.size_bytes, wal.sync_every), (REQUEST_BYTES, 22 << 20, 1));
        assert_eq!(wal.access, Access::Write(Room::Reserved));
        let batches: Vec<usize> =
            jobs.iter().filter(|job| job.name.starts_with("batch")).map(|job| job.block_bytes).collect();
        assert_eq!(batches, [4 << 10, 16 << 10, 64 << 10, 256 << 10]);
    }

    #[test]
    fn jobs_can_be_picked() {
        assert_eq!(names("--only wal-growing,wal"), ["wal", "wal-growing"]);
        let unknown = options("--only wal,wall").unwrap().jobs().unwrap_err();
        assert!(unknown.starts_with("there is no job \"wall\"; there are wal, wal-growing"), "{unknown}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for argv in ["--bs 0", "--bs 1g", "--bs 2m --size 1m"] {
            assert!(options(argv).unwrap().jobs().unwrap_err().starts_with("--bs is "), "{argv}");
        }
        for argv in ["--runtime 0", "--numjobs 0", "--numjobs 257", "--size x", "--output-format xml", "here"]
        {
            assert!(options(argv).is_err(), "{argv}");
        }
    }
}
