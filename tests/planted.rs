//! The testers tested: every planted bug is found by one of the tests that should find it.
//!
//! `make planted` builds this binary with `--cfg planted` and runs [`every_planted_bug_is_found`], which runs
//! itself again for each bug: first the finders without any bug (they must pass), then with it, until one of them
//! fails. `BUG=name` tries one. The table of what it took is written to `sim/planted.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pawl::sim::planted::BUGS;

/// The list and the code name the same bugs, each at one place.
#[test]
fn every_bug_has_one_place_and_every_place_a_bug() {
    let mut places = Vec::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources(&src, &mut |text| {
        let asked = text.split("planted::on(\"").skip(1);
        places.extend(asked.filter_map(|rest| rest.split('"').next().map(str::to_string)));
    });
    places.sort();
    let unique: BTreeSet<String> = places.iter().cloned().collect();
    assert_eq!(places.len(), unique.len(), "a bug is planted twice: {places:?}");
    let listed: BTreeSet<String> = BUGS.iter().map(|bug| bug.name.to_string()).collect();
    assert_eq!(listed.len(), BUGS.len(), "a bug is listed twice");
    assert_eq!(unique, listed, "planted and listed");
}

fn sources(dir: &Path, look: &mut impl FnMut(&str)) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[cfg(planted)]
mod driver {
    #![allow(clippy::disallowed_methods, reason = "runs processes in real time")]

    use std::fmt::Write as _;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use pawl::base::planted::VARIABLE;
    use pawl::sim::planted::{BUGS, Bug};

    /// Finders that run seeds stop at the first that fails.
    const SEEDS: &str = "400";
    /// A finder that has found nothing until then is given up.
    const PATIENCE: Duration = Duration::from_secs(400);

    struct Found {
        test: String,
        seed: Option<String>,
        cpu_seconds: f64,
        how: String,
    }

    #[test]
    fn every_planted_bug_is_found() {
        let wanted = std::env::var("BUG").ok();
        let bugs: Vec<&Bug> =
            BUGS.iter().filter(|bug| wanted.as_ref().is_none_or(|name| name == bug.name)).collect();
        assert!(!bugs.is_empty(), "no such bug: {wanted:?}");
        let mut table = String::from(HEAD);
        let mut missed = Vec::new();
        for bug in bugs {
            let found = bug.finders.iter().find_map(|finder| try_finder(bug.name, finder));
            let row = match found {
                Some(Found { test, seed, cpu_seconds, how }) => {
                    let seed = seed.unwrap_or_else(|| "-".into());
                    format!("| `{}` | {} | {test} | {seed} | {cpu_seconds:.1} | {how} |", bug.name, bug.what)
                }
                None => {
                    missed.push(bug.name);
                    format!("| `{}` | {} | **not found** by {:?} | | | |", bug.name, bug.what, bug.finders)
                }
            };
            println!("{row}");
            writeln!(table, "{row}").expect("a string takes it");
        }
        if wanted.is_none() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sim/planted.md");
            fs::create_dir_all(path.parent().expect("it is in sim")).expect("a directory");
            fs::write(&path, table).expect("the table is written");
        }
        assert!(missed.is_empty(), "not found: {missed:?}");
    }

    const HEAD: &str = "# Planted bugs\n\n\
        Written by `make planted`; the bugs are listed in `src/sim/planted.rs`. A finder that runs seeds begins at seed 1,\n\
        so the seed is also how many it took. CPU time is that of all finders tried for the bug's row up to the failure\n\
        of the last one, in the dev profile.\n\n\
        | bug | what | found by | seed | CPU s | how |\n|---|---|---|---|---|---|\n";

    fn try_finder(bug: &str, finder: &str) -> Option<Found> {
        let cpu_before = children_cpu_seconds();
        for binary in binaries() {
            let (text, ended_well) = run(&binary, bug, finder);
            if !ended_well {
                let test = first_failed(&text).unwrap_or_else(|| finder.to_string());
                let cpu_seconds = children_cpu_seconds() - cpu_before;
                return Some(Found { test, seed: seed_of(&text), cpu_seconds, how: how(&text) });
            }
        }
        None
    }

    /// This binary, and that of the unit tests beside it, the newest one.
    fn binaries() -> Vec<PathBuf> {
        let own = std::env::current_exe().expect("the own path");
        let dir = own.parent().expect("a directory");
        let unit = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("pawl-") && path.extension().is_none()
        };
        let entries =
            fs::read_dir(dir).expect("the own directory").map(|entry| entry.expect("an entry").path());
        let newest = entries
            .filter(unit)
            .max_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).expect("a file's time"));
        std::iter::once(own.clone()).chain(newest).collect()
    }

    fn run(binary: &Path, bug: &str, finder: &str) -> (String, bool) {
        let log = std::env::temp_dir().join(format!("pawl-planted-{}", std::process::id()));
        let file = fs::File::create(&log).expect("a file for the output");
        let other = file.try_clone().expect("a second handle");
        let mut child = Command::new(binary)
            .args([finder, "--test-threads=1"])
            .env(VARIABLE, bug)
            .env("SEEDS", SEEDS)
            .env("RUST_BACKTRACE", "0")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(other)
            .spawn()
            .expect("a test binary runs");
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break Some(status);
            }
            if began.elapsed() > PATIENCE {
                child.kill().expect("a child that runs");
                child.wait().expect("a child");
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let text = String::from_utf8_lossy(&fs::read(&log).expect("the output")).into_owned();
        fs::remove_file(&log).expect("the output's file");
        match status {
            Some(status) => (text, status.success()),
            None => (text, true),
        }
    }

    fn first_failed(text: &str) -> Option<String> {
        let name = |line: &str| line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_string);
        text.lines().find_map(name).map(|name| name.trim_end_matches(" - should panic").to_string())
    }

    /// What the failing test printed: `seed 17: ...`.
    fn seed_of(text: &str) -> Option<String> {
        let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
        text.split("seed ").skip(1).map(digits).find(|digits| !digits.is_empty())
    }

    /// The first line of the first panic, cut.
    fn how(text: &str) -> String {
        let mut lines = text.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
        let line = lines.next().unwrap_or_else(|| text.lines().last().unwrap_or_default());
        line.replace('|', "/").chars().take(110).collect()
    }

    /// User and system time of all children that have ended.
    fn children_cpu_seconds() -> f64 {
        let stat = fs::read_to_string("/proc/self/stat").expect("Linux tells");
        let behind_name = stat.rsplit(')').next().expect("a name in brackets");
        let fields: Vec<&str> = behind_name.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number of ticks");
        (ticks(13) + ticks(14)) / 100.0
    }
}
