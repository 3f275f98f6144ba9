//! The testers tested: every planted bug is found by one of the tests that should find it.
//!
//! `make planted` builds this binary with `--cfg planted` and runs `every_planted_bug_is_found`, which runs itself
//! again for each bug until one of its finders fails, and then the simulator (`PAWL_SIM`, a `pawld` of the same
//! build). What it took becomes the bug's row of `sim/planted.md`, at once: whoever breaks off loses one row.
//! `BUG="name beginning-of-names"` measures some, and leaves the other rows as they are.

use std::collections::{BTreeMap, BTreeSet};
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

/// Each has a row that was measured, and who missed it has somebody beside it who did not.
#[test]
fn every_bug_has_a_row_that_names_who_finds_it() {
    let rows = rows();
    for bug in BUGS {
        let row = rows.get(bug.name).unwrap_or_else(|| panic!("measure it: make planted BUG={}", bug.name));
        let cells: Vec<&str> = row.split(" | ").collect();
        assert!(cells.len() == 8 && cells[2].contains("::"), "no test finds it: {row}");
    }
}

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sim/planted.md")
}

/// The rows of the table, by the bug's name.
fn rows() -> BTreeMap<String, String> {
    let text = fs::read_to_string(table()).expect("sim/planted.md");
    let rows = text.lines().filter_map(|line| Some((line.strip_prefix("| `")?.split('`').next()?, line)));
    rows.map(|(name, line)| (name.to_string(), line.to_string())).collect()
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

    /// The simulator gives a bug up after so much processor time.
    const SIM_CPU_SECONDS: &str = "20";

    struct Found {
        test: String,
        seed: Option<String>,
        cpu_seconds: f64,
    }

    #[test]
    fn every_planted_bug_is_found() {
        let wanted = std::env::var("BUG").unwrap_or_default();
        let is_wanted = |bug: &&Bug| {
            wanted.is_empty() || wanted.split_whitespace().any(|word| bug.name.starts_with(word))
        };
        let bugs: Vec<&Bug> = BUGS.iter().filter(is_wanted).collect();
        assert!(!bugs.is_empty(), "no such bug: {wanted}");
        let mut missed = Vec::new();
        for bug in bugs {
            let found = bug.finders.iter().find_map(|finder| try_finder(bug.name, finder));
            if found.is_none() {
                missed.push(bug.name);
            }
            let by_test = match found {
                Some(Found { test, seed, cpu_seconds }) => {
                    format!("{test} | {} | {cpu_seconds:.1}", seed.unwrap_or_else(|| "-".into()))
                }
                None => "none | - | -".to_string(),
            };
            let row = format!("| `{}` | {} | {by_test} {}", bug.name, bug.what, simulate(bug.name));
            println!("{row}");
            put_row(bug.name, row);
        }
        assert!(missed.is_empty(), "no test finds: {missed:?}");
    }

    /// Writes the table anew, with this row in its place.
    fn put_row(bug: &str, row: String) {
        let mut rows = super::rows();
        rows.insert(bug.to_string(), row);
        let mut text = String::from(HEAD);
        for row in BUGS.iter().filter_map(|bug| rows.get(bug.name)) {
            writeln!(text, "{row}").expect("a string takes it");
        }
        fs::write(super::table(), text).expect("the table is written");
    }

    const HEAD: &str = "# Planted bugs\n\n\
        Who finds each of the historical mistakes that `src/sim/planted.rs` lists, and how fast; written by `make planted`.\n\
        The first half of a row is the first of its tests that fails (profile `dev`): CPU seconds of its module's tests up\n\
        to then, and the seed where it runs seeds from 1. The second half is the simulator (`pawld sim planted`, profile\n\
        `sim`): how many seeds from 1 on, CPU seconds, and what it says. \"not found\" means: not within the CPU seconds of\n\
        that row; such a bug is for the test beside it.\n\n\
        | bug | what | found by the test | seed | CPU s | simulator: seeds | CPU s | it says |\n\
        |---|---|---|---|---|---|---|---|\n";

    /// The simulator's half of the row.
    fn simulate(bug: &str) -> String {
        let program = std::env::var("PAWL_SIM").expect("make planted names the simulator's program");
        let output = Command::new(program)
            .args(["sim", "planted", "--bug", bug, "--cpu", SIM_CPU_SECONDS])
            .output()
            .expect("the simulator runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let row = text.lines().find_map(|line| line.strip_prefix(&format!("| `{bug}` ")));
        row.unwrap_or_else(|| panic!("no row for {bug}: {text}")).to_string()
    }

    fn try_finder(bug: &str, finder: &str) -> Option<Found> {
        let cpu_before = children_cpu_seconds();
        binaries().iter().find_map(|binary| {
            let (test, said) = first_failure(binary, bug, finder)?;
            let cpu_seconds = children_cpu_seconds() - cpu_before;
            Some(Found { test, seed: seed_of(&said), cpu_seconds })
        })
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

    /// Runs tests until one fails: its name, and what it said.
    fn first_failure(binary: &Path, bug: &str, finder: &str) -> Option<(String, String)> {
        let log = std::env::temp_dir().join(format!("pawl-planted-{}", std::process::id()));
        let file = fs::File::create(&log).expect("a file for the output");
        let other = file.try_clone().expect("a second handle");
        let mut child = Command::new(binary)
            .args([finder, "--test-threads=1", "--nocapture"])
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
        let failed = loop {
            // Looked at first: whoever has ended has written everything.
            let ended = child.try_wait().expect("a child");
            let text = String::from_utf8_lossy(&fs::read(&log).expect("the output")).into_owned();
            let failed = failed_test(&text);
            if failed.is_some() || began.elapsed() > PATIENCE {
                break failed;
            }
            if let Some(status) = ended {
                // It may have ended in the middle of a test.
                break (!status.success()).then(|| (finder.to_string(), text));
            }
            // A child that ends tells nobody: it is looked at again, and within a bound.
            std::thread::sleep(Duration::from_millis(20));
        };
        let _ = child.kill(); // An error: it has ended.
        child.wait().expect("a child");
        fs::remove_file(&log).expect("the output's file");
        failed
    }

    /// `test NAME ... `, what it says, and then `FAILED`.
    fn failed_test(text: &str) -> Option<(String, String)> {
        let mut running = (String::new(), String::new());
        for line in text.lines() {
            if let Some((name, rest)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
                running = (name.trim_end_matches(" - should panic").to_string(), rest.to_string());
            } else {
                running.1.push_str(line);
            }
            if line.ends_with("FAILED") && !running.0.is_empty() {
                return Some(running);
            }
        }
        None
    }

    /// What the failing test printed: `seed 17: ...`.
    fn seed_of(text: &str) -> Option<String> {
        let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
        text.split("seed ").skip(1).map(digits).find(|digits| !digits.is_empty())
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
