//! A bar on the terminal while a measurement runs; nothing where nobody watches.

use std::io::IsTerminal;

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

    /// For something of so many parts.
    pub fn begin(&self, name: &'static str, parts: u64) -> ProgressBar {
        if !self.shown {
            return ProgressBar::hidden();
        }
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(Some(parts), target);
        let style = ProgressStyle::with_template("{prefix:>14} [{bar:40}] {percent:>3}% {eta}");
        bar.set_style(style.expect("the template is one"));
        bar.set_prefix(name);
        bar
    }
}
