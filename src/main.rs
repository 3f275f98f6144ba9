//! `pawld`: the command line becomes an exit code. All else is in the library.

fn main() -> std::process::ExitCode {
    pawl::cli::run(std::env::args_os().collect())
}
