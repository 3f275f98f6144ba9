//! Mutated input for every decoder of bytes from outside, on stable Rust and without extra tools.
//!
//! `make fuzz`, or in here `cargo run --release -- [--seconds N] [--seed N] [TARGET]`. Inputs are seeds
//! of the target and files of `corpus/<target>/`, mutated by seeded dice: the printed seed repeats a run exactly. An input
//! that makes its target panic is left in `artifacts/`, and the run ends.

mod mutate;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pawl::base::Rng;
use targets::Target;

/// Inputs between two looks at the clock.
const BATCH: u32 = 256;

struct Options {
    seconds: u64,
    seed: u64,
    target: Option<String>,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\nusage: pawl-fuzz [--seconds N] [--seed N] [TARGET]");
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<_> = targets::ALL
        .iter()
        .filter(|target| options.target.as_deref().is_none_or(|wanted| wanted == target.name))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
        eprintln!("no such target; there are: {}", names.join(" "));
        return ExitCode::from(2);
    }
    println!("seed {}", options.seed);
    let each = Duration::from_secs(options.seconds) / u32::try_from(chosen.len()).expect("a few targets");
    for target in chosen {
        let inputs = run(target, each, options.seed);
        println!("{:12} {inputs:>10} inputs, none failed", target.name);
    }
    ExitCode::SUCCESS
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut options = Options { seconds: 60, seed: wall, target: None };
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64, String> {
            let value = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
            value.parse().map_err(|_| format!("{arg}: `{value}` is not a number"))
        };
        match arg.as_str() {
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()?,
            flag if flag.starts_with('-') => return Err(format!("unknown flag {flag}")),
            _ => options.target = Some(arg),
        }
    }
    Ok(options)
}

fn run(target: &Target, time: Duration, seed: u64) -> u64 {
    let name = target.name;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = corpus(target, &here.join("corpus").join(name));
    let artifacts = here.join("artifacts");
    fs::create_dir_all(&artifacts).expect("a directory for the artifacts");
    let artifact: PathBuf = artifacts.join(format!("{name}-{seed}"));
    let mut rng = Rng::new(seed);
    for input in &corpus {
        (target.run)(input, &mut rng.clone());
    }
    let start = Instant::now();
    let mut inputs = 0;
    while start.elapsed() < time {
        for _ in 0..BATCH {
            let mut input = corpus[rng.below(corpus.len() as u64) as usize].clone();
            mutate::mutate(&mut input, &corpus, &mut rng);
            let state = rng.clone();
            let outcome = std::panic::catch_unwind(|| (target.run)(&input, &mut state.clone()));
            if outcome.is_err() {
                fs::write(&artifact, &input).expect("the artifact can be written");
                eprintln!("{name}: input {} failed; kept as {}", inputs, artifact.display());
                std::process::exit(1);
            }
            inputs += 1;
        }
    }
    inputs
}

/// The target's seeds, and inputs that were committed because they once failed, sorted by name.
fn corpus(target: &Target, dir: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).map(|dir| dir.flatten().map(|entry| entry.path()).collect()).unwrap_or_default();
    paths.sort();
    let mut inputs = (target.seeds)();
    inputs.extend(paths.iter().map(|path| fs::read(path).expect("a corpus file")));
    inputs.push(Vec::new());
    inputs
}
