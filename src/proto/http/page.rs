//! Prometheus' text format 0.0.4: families of samples, each with a word of what it is.

use std::fmt::{Display, Write};

use crate::base::Histogram;
use crate::base::time::Nanos;

#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

/// Names and values, in their order.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    pub(super) fn into_text(self) -> String {
        self.text
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help).sample(&[], value);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.counters(name, help).sample(&[], value);
    }

    pub(super) fn gauges<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, help, "gauge")
    }

    pub(super) fn counters<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, help, "counter")
    }

    /// Of durations, in seconds.
    pub(super) fn histograms<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, help, "histogram")
    }

    fn family<'a>(&'a mut self, name: &'a str, help: &str, kind: &str) -> Family<'a> {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }
}

/// Samples of one name.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, value);
    }

    pub(super) fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        for (bound, count) in histogram.cumulative() {
            self.line("_bucket", &[labels, &[("le", &seconds(bound))]].concat(), count);
        }
        self.line("_bucket", &[labels, &[("le", "+Inf")]].concat(), histogram.count());
        self.line("_sum", labels, seconds(histogram.sum()));
        self.line("_count", labels, histogram.count());
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"{}\"", if at == 0 { '{' } else { ',' }, Escaped(value));
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// A label's value: backslash, quote and line feed are written as escapes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// As a decimal fraction, exact to the nanosecond, without zeroes at its end.
pub(super) fn seconds(nanos: Nanos) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_decimal_fractions_of_seconds() {
        for (nanos, text) in [
            (0, "0"),
            (62_500, "0.0000625"),
            (1_000_000_000, "1"),
            (8_192_000_000, "8.192"),
            (1, "0.000000001"),
        ] {
            assert_eq!(seconds(nanos), text);
        }
        assert_eq!(seconds(100_000_000_000), "100");
    }

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.gauges("g", "What it is.").sample(&[("a", "1\"\\\n"), ("b", "")], 7);
        assert_eq!(
            page.into_text(),
            "# HELP g What it is.\n# TYPE g gauge\ng{a=\"1\\\"\\\\\\n\",b=\"\"} 7\n"
        );
    }

    #[test]
    fn a_histogram_has_buckets_a_sum_and_a_count() {
        let mut times = Histogram::default();
        [50_000, 100_000, 9_000_000_000].into_iter().for_each(|took| times.observe(took));
        let mut page = Page::default();
        page.histograms("h", "x").histogram(&[("To", "a")], &times);
        let text = page.into_text();
        assert!(
            text.contains("h_bucket{To=\"a\",le=\"0.0000625\"} 1\nh_bucket{To=\"a\",le=\"0.000125\"} 2\n")
        );
        assert!(text.ends_with("le=\"8.192\"} 2\nh_bucket{To=\"a\",le=\"+Inf\"} 3\nh_sum{To=\"a\"} 9.00015\nh_count{To=\"a\"} 3\n"));
    }
}
