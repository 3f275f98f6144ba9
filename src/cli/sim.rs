//! `pawld sim`: runs the whole-cluster simulator. Seeds, plans, the search for a smaller plan.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};

use super::Console;
use crate::base::time::{Nanos, SECOND};
use crate::io::os::{OsDisk, OsEntropy};
use crate::io::{Disk, Entropy, File, Open};
use crate::sim::explore::{Report, search, setups};
use crate::sim::generate::{Load, generate};
use crate::sim::plan::Plan;
use crate::sim::report::{Failure, Outcome, Tally};
use crate::sim::run::{View, quiet_panics, run as run_plan};
use crate::sim::shrink::shrink;

#[derive(Debug, Parser)]
#[command(name = "pawld sim", about = "Runs whole clusters on simulated disks, networks and clocks")]
#[command(disable_version_flag = true, disable_help_subcommand = true)]
struct Line {
    /// The first seed; a fresh one if it is left out
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// How many seeds to run
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    seeds: u64,
    /// Stop after so many seconds of CPU time, between two seeds
    #[arg(long, value_name = "SECONDS")]
    cpu: Option<u64>,
    /// Run this plan instead of generated ones
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds"])]
    plan: Option<PathBuf>,
    /// What kind of runs the seeds make
    #[arg(long, value_enum, default_value_t = Kind::Mixed)]
    load: Kind,
    /// Print the plan of the seed and do not run it
    #[arg(long)]
    show: bool,
    /// Print one line for everything that happens
    #[arg(long)]
    log: bool,
    /// End behind this event (the first number of a line of the log)
    #[arg(long, value_name = "EVENT", default_value_t = 0)]
    until: u64,
    /// Run everything twice, and compare; otherwise one seed in 20
    #[arg(long)]
    twice: bool,
    /// Where plans that fail are kept
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// CPU seconds for making a failing plan smaller; 0: leave it as it is
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    shrink: u64,
    /// With `planted`: this bug alone
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// With `explore`: so many distinct states of each small world
    #[arg(long, value_name = "STATES", default_value_t = 1_000_000)]
    states: u64,
    /// With `explore`: this small world alone
    #[arg(long, value_name = "NAME")]
    world: Option<String>,
    /// `shrink FILE`: makes a failing plan smaller. `explore`: looks at every state of small clusters, up to --states
    /// of each. `planted`: how many seeds find each planted bug, within --cpu (60)
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Dense,
    Sparse,
    Mixed,
}

impl From<Kind> for Load {
    fn from(kind: Kind) -> Load {
        match kind {
            Kind::Dense => Load::Dense,
            Kind::Sparse => Load::Sparse,
            Kind::Mixed => Load::Mixed,
        }
    }
}

/// Runs one command; the exit code: 0 if every promise held, 1 if not, 2 for a command line without sense.
pub fn run(program: &str, words: &[OsString], console: &mut Console) -> u8 {
    let argv = std::iter::once(OsString::from(program)).chain(words.iter().cloned());
    let matches = Line::command().bin_name(program.to_owned()).try_get_matches_from(argv);
    let line = match matches.and_then(|mut matches| Line::from_arg_matches_mut(&mut matches)) {
        Ok(line) => line,
        Err(error) if !error.use_stderr() => {
            console.print(error.to_string().as_bytes());
            return 0;
        }
        Err(error) => {
            console.complain(&error.to_string());
            return 2;
        }
    };
    quiet_panics();
    let done = match line.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] if line.plan.is_some() => run_file(&line, console),
        [] => Ok(run_seeds(&line, console)),
        ["shrink", file] => shrink_file(&line, Path::new(file), console),
        ["explore"] => explore(&line, console),
        ["planted"] => find_planted(&line, console),
        _ => Err("the commands are: shrink FILE, explore, and planted".to_string()),
    };
    match done {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(why) => {
            console.complain(&format!("{program}: {why}"));
            2
        }
    }
}

fn cpu_nanos() -> Nanos {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec.cast_unsigned() * SECOND + now.tv_nsec.cast_unsigned()
}

fn view(line: &Line) -> View {
    let sink = line.log.then(|| -> Box<dyn FnMut(&str)> {
        Box::new(|line: &str| {
            use std::io::Write;
            let _ = writeln!(std::io::stdout(), "{line}");
        })
    });
    View { sink, keep: false, until_event: line.until }
}

fn run_file(line: &Line, console: &mut Console) -> Result<bool, String> {
    let path = line.plan.as_deref().expect("the caller has looked");
    let plan = Plan::parse(&read(path)?).map_err(|why| format!("{}: {why}", path.display()))?;
    let (began, outcome) = (cpu_nanos(), run_once(&plan, line, line.twice));
    summarise(console, 1, &outcome.tally, cpu_nanos() - began);
    match &outcome.failure {
        None => Ok(true),
        Some(failure) => {
            complain(console, &plan, failure, outcome.hash);
            Ok(false)
        }
    }
}

fn run_seeds(line: &Line, console: &mut Console) -> bool {
    let first = line.seed.unwrap_or_else(|| OsEntropy.seed() >> 16);
    let (began, mut total, mut done, mut failed) = (cpu_nanos(), Tally::default(), 0, 0);
    for seed in first..first + line.seeds {
        let plan = generate(seed, line.load.into());
        if line.show {
            console.print(plan.to_string().as_bytes());
            continue;
        }
        let outcome = run_once(&plan, line, line.twice || seed % 20 == 0);
        total.add(&outcome.tally);
        done += 1;
        if let Some(failure) = &outcome.failure {
            failed += 1;
            complain(console, &plan, failure, outcome.hash);
            keep_failing(line, &plan, failure, console);
        }
        if line.cpu.is_some_and(|seconds| cpu_nanos() - began >= seconds * SECOND) {
            break;
        }
    }
    if !line.show {
        console.print(format!("seeds {first} to {}: {failed} failed\n", first + done - 1).as_bytes());
        summarise(console, done, &total, cpu_nanos() - began);
    }
    failed == 0
}

/// Runs a plan, and again if wanted: the two must agree.
fn run_once(plan: &Plan, line: &Line, twice: bool) -> Outcome {
    let mut outcome = run_plan(plan, view(line));
    if twice && outcome.failure.is_none() && !line.log {
        let again = run_plan(plan, view(line));
        if again.hash != outcome.hash {
            let what = format!("two runs of one plan differ: {:016x} and {:016x}", outcome.hash, again.hash);
            outcome.failure = Some(Failure { id: "twice".into(), what, at: 0 });
        }
    }
    outcome
}

fn summarise(console: &mut Console, seeds: u64, tally: &Tally, cpu: Nanos) {
    let millis = (cpu / 1_000_000).max(1);
    let rate = tally.ops * 1_000 / millis;
    let speed = tally.nanos / 1_000_000 / millis;
    let text = format!(
        "{seeds} runs; {tally}\n{}.{:03} CPU seconds, {rate} operations per CPU second, {speed} times real time\n",
        millis / 1_000,
        millis % 1_000
    );
    console.print(text.as_bytes());
}

fn complain(console: &mut Console, plan: &Plan, failure: &Failure, hash: u64) {
    let Failure { id, what, at } = failure;
    let seed = plan.options.seed;
    let (seconds, millis) = (at / SECOND, at / 1_000_000 % 1_000);
    console
        .complain(&format!("FAILED seed {seed}, trace {hash:016x}: {id} at {seconds}.{millis:03}s: {what}"));
}

fn keep_failing(line: &Line, plan: &Plan, failure: &Failure, console: &mut Console) {
    let seed = plan.options.seed;
    let path = line.out.join(format!("fail-{seed}.plan"));
    if let Err(why) = write(&path, &describe(plan, failure)) {
        return console.complain(&why);
    }
    console
        .complain(&format!("    its plan is {}: run it with --plan, look at it with --log", path.display()));
    if line.shrink > 0 && failure.id != "twice" {
        make_smaller(line, plan, failure, &line.out.join(format!("fail-{seed}-small.plan")), console);
    }
}

fn describe(plan: &Plan, failure: &Failure) -> String {
    let what = failure.what.lines().next().unwrap_or_default();
    format!("{plan}# {}: {what}\n", failure.id)
}

fn make_smaller(line: &Line, plan: &Plan, failure: &Failure, path: &Path, console: &mut Console) {
    let until = cpu_nanos() + line.shrink.max(1) * SECOND;
    let shrunk = shrink(plan, failure, &mut || cpu_nanos() < until);
    let (lines, runs) = (shrunk.plan.entries.len(), shrunk.runs);
    match write(path, &describe(&shrunk.plan, &shrunk.failure)) {
        Ok(()) => console.complain(&format!(
            "    made smaller: {} ({lines} lines of {}, {runs} runs)",
            path.display(),
            plan.entries.len()
        )),
        Err(why) => console.complain(&why),
    }
}

fn shrink_file(line: &Line, path: &Path, console: &mut Console) -> Result<bool, String> {
    let plan = Plan::parse(&read(path)?).map_err(|why| format!("{}: {why}", path.display()))?;
    let outcome = run_plan(&plan, View::default());
    let Some(failure) = outcome.failure else {
        return Err(format!("{} does not fail", path.display()));
    };
    complain(console, &plan, &failure, outcome.hash);
    make_smaller(line, &plan, &failure, &path.with_extension("small.plan"), console);
    Ok(false)
}

/// Whether no rule was broken in any state.
fn explore(line: &Line, console: &mut Console) -> Result<bool, String> {
    let (mut states_sum, mut sound, began) = (0, true, cpu_nanos());
    let wanted = |name: &str| line.world.as_ref().is_none_or(|world| world == name);
    let chosen: Vec<_> = setups().into_iter().filter(|setup| wanted(setup.name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = setups().iter().map(|setup| setup.name).collect();
        return Err(format!("the small worlds are: {}", names.join(", ")));
    }
    for setup in chosen {
        let Report { states, steps, depth, complete, violation } = search(&setup, line.states);
        let extent = if complete { "all" } else { "so far" };
        let found = violation.as_ref().map_or("nothing wrong", |violation| &violation.what);
        let row = format!(
            "{:24} {states:>9} states ({extent}), {steps:>10} steps, depth {depth:>2}: {found}\n",
            setup.name
        );
        console.print(row.as_bytes());
        if let Some(violation) = violation {
            console.print(format!("  {}\n", violation.path.join("\n  ")).as_bytes());
            sound = false;
        }
        states_sum += states;
    }
    let seconds = (cpu_nanos() - began) / SECOND;
    console.print(format!("{states_sum} distinct states in {seconds} CPU seconds\n").as_bytes());
    Ok(sound)
}

#[cfg(not(planted))]
fn find_planted(_line: &Line, _console: &mut Console) -> Result<bool, String> {
    Err("no bugs are planted in this build; make planted makes one that has them".into())
}

/// For each bug: how many seeds find it, and in how much CPU time. A bug that seeds do not find within the time is
/// for the tests that `sim::planted` names.
#[cfg(planted)]
fn find_planted(line: &Line, console: &mut Console) -> Result<bool, String> {
    use crate::base::planted::switch_on;
    use crate::sim::planted::{BUGS, seeds_to_detection};

    let wanted = |name: &str| line.bug.as_ref().is_none_or(|bug| bug == name);
    if !BUGS.iter().any(|bug| wanted(bug.name)) {
        return Err(format!("no such bug: {}", line.bug.as_deref().unwrap_or_default()));
    }
    let cpu_max = line.cpu.unwrap_or(60) * SECOND;
    for bug in BUGS.iter().filter(|bug| wanted(bug.name)) {
        switch_on(bug.name);
        let began = cpu_nanos();
        let (seeds, failure) = seeds_to_detection(|| cpu_nanos() - began < cpu_max);
        let tenths = (cpu_nanos() - began) / (SECOND / 10);
        let found = failure.map_or("not found".into(), |failure| {
            format!("{}: {}", failure.id, failure.what.lines().next().unwrap_or_default())
        });
        let found: String = found.replace('|', "/").chars().take(140).collect();
        let row = format!("| `{}` | {seeds} | {}.{} | {found} |\n", bug.name, tenths / 10, tenths % 10);
        console.print(row.as_bytes());
    }
    switch_on("");
    Ok(true)
}

fn read(path: &Path) -> Result<String, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let file = OsDisk.open(path, Open::Read).map_err(|e| wrong(&e))?;
    let mut bytes = vec![0; file.len_bytes().map_err(|e| wrong(&e))?.min(16 << 20) as usize];
    file.read_at(0, &mut bytes).map_err(|e| wrong(&e))?;
    String::from_utf8(bytes).map_err(|e| wrong(&e))
}

/// Replaces the file, if there is one.
fn write(path: &Path, text: &str) -> Result<(), String> {
    let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    // A bare name has one, the empty path.
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        OsDisk.create_dir_all(dir).map_err(|e| wrong(&e))?;
    }
    if OsDisk.exists(path).map_err(|e| wrong(&e))? {
        OsDisk.remove(path).map_err(|e| wrong(&e))?;
    }
    let file = OsDisk.open(path, Open::Create).map_err(|e| wrong(&e))?;
    file.write_at(0, text.as_bytes()).map_err(|e| wrong(&e))
}
