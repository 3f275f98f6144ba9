//! A bar on the terminal while a measurement runs; nothing where nobody watches.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Often enough for the eye, seldom enough to cost a measurement nothing.
const DRAWS_PER_SECOND: u8 = 10;

pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Shown where both outputs are a terminal: a bar beside a report in a file would help nobody, and mar a log.
    pub fn new() -> Progress {
        Progress { shown: std::io::stdout().is_terminal() && std::io::stderr().is_terminal() }
    }

    /// For one job of so many bytes, which is done in `time_max` at the latest.
    pub fn begin(&self, name: &'static str, size_bytes: u64, time_max: Duration) -> ProgressBar {
        if !self.shown {
            return ProgressBar::hidden();
        }
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(Some(size_bytes), target);
        let style = ProgressStyle::with_template("{prefix:>14} [{bar:40}] {bytes} of {total_bytes} {msg}");
        bar.set_style(style.expect("the template is one"));
        bar.set_prefix(name);
        bar.set_message(format!("(at most {} s)", time_max.as_secs()));
        bar
    }
}
