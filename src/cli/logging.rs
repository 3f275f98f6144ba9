//! The form of log lines: `ts=2026-11-22T17:28:05.017Z level=info at=pawl::net what happened key=value ...`.
//! One event is one line whatever it contains, so that a key of a client cannot forge one.

use std::fmt::Write as _;
use std::io::Write as _;

use log::LevelFilter;

use crate::io::Clock;
use crate::io::os::OsClock;

/// Sends log lines to standard error from now on. `level` is a word of `--log-level`.
pub fn start(level: &str) {
    env_logger::Builder::new()
        .filter_level(filter(level))
        .target(env_logger::Target::Stderr)
        .format(|out, record| {
            let line = line(OsClock.wall_ms(), record.level(), record.target(), &record.args().to_string());
            out.write_all(line.as_bytes())
        })
        .try_init()
        // Only a second server in one process could fail here, and it may use the first one's log.
        .unwrap_or_default();
}

fn filter(level: &str) -> LevelFilter {
    match level {
        "debug" => LevelFilter::Debug,
        "info" => LevelFilter::Info,
        "warn" => LevelFilter::Warn,
        _ => LevelFilter::Error,
    }
}

fn line(wall_ms: u64, level: log::Level, target: &str, message: &str) -> String {
    let level = level.as_str().to_ascii_lowercase();
    let mut out = format!("ts={} level={level} at={target} ", rfc3339(wall_ms));
    for c in message.chars() {
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('\n');
    out
}

/// `key=value` with the value in quotes where it would not read as one word.
pub fn pair(key: &str, value: &str) -> String {
    let plain = !value.is_empty() && !value.contains([' ', '"', '=']) && !value.contains(char::is_control);
    if plain { format!("{key}={value}") } else { format!("{key}={value:?}") }
}

/// Milliseconds since 1970 as UTC.
fn rfc3339(wall_ms: u64) -> String {
    let (days, ms) = (wall_ms / 86_400_000, wall_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// Days since 1970 to year, month and day of the Gregorian calendar. Counted in eras of 400 years that
/// begin on 1 March of year 0, so that the leap day is the last of its year.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_368_448_656, "2026-11-22T17:27:28.656Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(
            line(0, log::Level::Warn, "pawl::net", "bad\nword\x1b[0m"),
            "ts=1970-01-01T00:00:00.000Z level=warn at=pawl::net bad\\nword\\u{1b}[0m\n"
        );
        assert_eq!(pair("name", "a"), "name=a");
        assert_eq!(pair("name", "a b"), "name=\"a b\"");
        assert_eq!(pair("wal-dir", ""), "wal-dir=\"\"");
    }
}
