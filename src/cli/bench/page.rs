//! A report as one page of HTML that needs no network and no script: figures, three charts for each run, and what was asked.
//!
//! Charts are drawn here, as SVG. Their text is sized for a telephone held upright, where a chart is as wide as the screen,
//! and for two of them side by side on a desk.

use std::fmt::Write;

use super::super::version;
use crate::measure::Latencies;
use crate::measure::load::{Outcome, Plan};

/// A chart's own units; the page scales it.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 250.0;
/// Around the area that is drawn in: above, right, below, left.
const MARGINS: [f64; 4] = [14.0, 14.0, 34.0, 58.0];

/// Grid lines across.
const TICKS: f64 = 4.0;

/// Percentiles of the curve, as far as there are requests enough for them.
const CURVE: [f64; 19] = [
    0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95,
    99.99, 99.999,
];

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6775; --line: #d9dfe6; --paper: #f6f8fa; --card: #fff; --a: #2563eb; --b: #d97706; --c: #be123c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --soft: #9aa7b5; --line: #303a46; --paper: #12171d; --card: #1a2129; --a: #60a5fa; --b: #fbbf24; --c: #fb7185; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 36px 0 12px; }
p { margin: 0; color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; }
.card, figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.card { padding: 12px 14px; } .card b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; } .card span { color: var(--soft); font-size: 14px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 12px; margin-top: 12px; }
figure { margin: 0; padding: 12px; } figcaption { font-weight: 600; margin-bottom: 6px; }
.key { font-weight: 400; color: var(--soft); font-size: 14px; margin-left: 10px; white-space: nowrap; } .key i { display: inline-block; width: 14px; height: 3px; margin-right: 5px; vertical-align: middle; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 14px; }
.grid { stroke: var(--line); stroke-width: 1; } polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
.a { stroke: var(--a); } .b { stroke: var(--b); } .c { stroke: var(--c); } .key .a { background: var(--a); } .key .b { background: var(--b); } .key .c { background: var(--c); }
table { border-collapse: collapse; font-size: 15px; } td { padding: 3px 18px 3px 0; vertical-align: top; overflow-wrap: anywhere; } td:first-child { color: var(--soft); white-space: nowrap; }
";

/// Values by name, and how the line looks.
struct Line {
    name: &'static str,
    class: &'static str,
    points: Vec<(f64, f64)>,
}

/// The page. `wall_ms`: when it was made, since 1970.
pub fn html(done: &[(&str, Plan, Outcome)], wall_ms: u64) -> String {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    let _ = write!(out, "<title>pawld bench</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n");
    let _ = writeln!(out, "<h1>pawld bench</h1>\n<p>Version {}, {} UTC</p>", version::PAWL, date(wall_ms));
    for (name, plan, outcome) in done {
        section(name, plan, outcome, &mut out);
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn section(name: &str, plan: &Plan, outcome: &Outcome, out: &mut String) {
    let _ = writeln!(out, "<section>\n<h2>{name}</h2>\n<div class=\"cards\">");
    let all = &outcome.latencies;
    let at = |percent| format!("{} ms", shown(all.percentile(percent) as f64 / 1e6));
    for (value, what) in [
        (format!("{:.0}", outcome.rate()), "requests a second"),
        (at(50.0), "50th percentile"),
        (at(99.0), "99th percentile"),
        (at(99.9), "99.9th percentile"),
        (format!("{} ms", shown(all.max() as f64 / 1e6)), "slowest"),
        (outcome.failed().to_string(), "failed"),
    ] {
        let _ = writeln!(out, "<div class=\"card\"><b>{value}</b><span>{what}</span></div>");
    }
    out.push_str("</div>\n<div class=\"charts\">\n");
    let times = over_time(outcome);
    let seconds = |second: f64| format!("{} s", shown(second));
    let rates = vec![Line { name: "answered", class: "a", points: rate_over_time(outcome) }];
    chart("Latency over time, ms", &times, seconds, &[], out);
    chart("Requests a second over time", &rates, seconds, &[], out);
    let curve = vec![Line { name: "all requests", class: "a", points: curve(all) }];
    let nines = [(0.0, "0%"), (1.0, "90%"), (2.0, "99%"), (3.0, "99.9%"), (4.0, "99.99%"), (5.0, "99.999%")];
    chart("Latency by percentile, ms", &curve, |_| String::new(), &nines, out);
    configuration(plan, outcome, out);
    out.push_str("</div>\n</section>\n");
}

fn over_time(outcome: &Outcome) -> Vec<Line> {
    let width = outcome.series.width() as f64 / 1e9;
    let of = |percent: f64| -> Vec<(f64, f64)> {
        let slots = outcome.series.slots().iter().enumerate().filter(|(_, slot)| slot.latencies.count() > 0);
        slots
            .map(|(at, slot)| ((at as f64 + 0.5) * width, slot.latencies.percentile(percent) as f64 / 1e6))
            .collect()
    };
    vec![
        Line { name: "p50", class: "a", points: of(50.0) },
        Line { name: "p99", class: "b", points: of(99.0) },
        Line { name: "slowest", class: "c", points: of(100.0) },
    ]
}

/// The last step is not whole: it would look like a fall.
fn rate_over_time(outcome: &Outcome) -> Vec<(f64, f64)> {
    let width = outcome.series.width() as f64 / 1e9;
    let slots = outcome.series.slots();
    let whole = if slots.len() > 1 { &slots[..slots.len() - 1] } else { slots };
    let rate = |count: u64| count as f64 / width;
    whole
        .iter()
        .enumerate()
        .map(|(at, slot)| ((at as f64 + 0.5) * width, rate(slot.latencies.count())))
        .collect()
}

/// Over the number of nines.
fn curve(all: &Latencies) -> Vec<(f64, f64)> {
    let enough = |percent: &&f64| (1.0 - **percent / 100.0) * all.count() as f64 >= 1.0;
    let nines = |percent: f64| -(1.0 - percent / 100.0).log10();
    CURVE
        .iter()
        .filter(enough)
        .map(|&percent| (nines(percent), all.percentile(percent) as f64 / 1e6))
        .collect()
}

/// One figure. `marks`: of the axis below; without any, it is divided evenly and `named` says how.
fn chart(
    title: &str,
    lines: &[Line],
    named: impl Fn(f64) -> String,
    marks: &[(f64, &str)],
    out: &mut String,
) {
    let most = |of: fn(&(f64, f64)) -> f64| {
        lines.iter().flat_map(|line| line.points.iter().map(of)).fold(0.0, f64::max)
    };
    let (x_max, y_max) = (most(|point| point.0).max(1e-9), most(|point| point.1).max(1e-9));
    let step = nice(y_max / TICKS);
    let y_top = (y_max / step).ceil() * step;
    let [above, right, below, left] = MARGINS;
    let x = |value: f64| left + value / x_max * (WIDTH - left - right);
    let y = |value: f64| HEIGHT - below - value / y_top * (HEIGHT - above - below);

    let _ = write!(out, "<figure><figcaption>{title}");
    for line in lines.iter().filter(|_| lines.len() > 1) {
        let _ = write!(out, "<span class=\"key\"><i class=\"{}\"></i>{}</span>", line.class, line.name);
    }
    let _ = write!(
        out,
        "</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n"
    );
    let mut value = 0.0;
    while value <= y_top * 1.001 {
        let at = y(value);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
            WIDTH - right
        );
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 7.0,
            at + 5.0,
            shown(value)
        );
        value += step;
    }
    let even: Vec<(f64, String)> =
        (0..=4).map(|part| f64::from(part) / 4.0 * x_max).map(|at| (at, named(at))).collect();
    let marked =
        marks.iter().filter(|(at, _)| *at <= x_max * 1.001).map(|(at, text)| (*at, (*text).to_owned()));
    let all: Vec<(f64, String)> = if marks.is_empty() { even } else { marked.collect() };
    for (at, text) in all {
        // At the edge it would be cut off.
        let anchor = if x(at) > WIDTH - right - 20.0 { "end" } else { "middle" };
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>",
            x(at),
            HEIGHT - 10.0
        );
    }
    for line in lines {
        let points: Vec<String> =
            line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = writeln!(
            out,
            "<polyline class=\"{}\" points=\"{}\"><title>{}</title></polyline>",
            line.class,
            points.join(" "),
            line.name
        );
    }
    out.push_str("</svg></figure>\n");
}

fn configuration(plan: &Plan, outcome: &Outcome, out: &mut String) {
    let addresses: Vec<String> = plan.addresses.iter().map(ToString::to_string).collect();
    let errors: Vec<String> = outcome.errors.iter().map(|(code, count)| format!("{code} {count}")).collect();
    out.push_str("<figure><figcaption>What was asked</figcaption>\n<table>\n");
    for (name, value) in [
        ("servers", addresses.join(", ")),
        ("connections", plan.connections.to_string()),
        ("clients", plan.clients.to_string()),
        ("requests at once", plan.pipeline.to_string()),
        (
            "rate asked for",
            plan.rate
                .map_or_else(|| "as answered".into(), |rate| format!("{rate} a second, timed from when due")),
        ),
        ("requests", (outcome.done() + outcome.failed()).to_string()),
        ("time", format!("{:.2} s", outcome.took as f64 / 1e9)),
        ("errors", if errors.is_empty() { "none".into() } else { errors.join(", ") }),
    ] {
        let _ = writeln!(out, "<tr><td>{name}</td><td>{value}</td></tr>");
    }
    out.push_str("</table></figure>\n");
}

/// The next of 1, 2, 5, 10, 20, … that is not smaller.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|nice| *nice >= step * 0.999)
        .unwrap_or(10.0 * power)
}

/// Three digits, and thousands as k.
fn shown(value: f64) -> String {
    let digits = |value: f64| match value {
        v if v >= 100.0 || v == v.round() => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    };
    if value >= 10_000.0 { format!("{}k", digits(value / 1_000.0)) } else { digits(value) }
}

/// `2026-01-31 12:00`, by the Gregorian calendar.
fn date(wall_ms: u64) -> String {
    let minutes = wall_ms / 60_000;
    let (mut days, minute) = (minutes / 1_440, minutes % 1_440);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let months = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02} {:02}:{:02}", month + 1, days + 1, minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        for (wall_ms, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_400_000, "2000-02-29 00:00"),
            (1_700_000_000_000, "2023-11-14 22:13"),
            (4_107_542_399_000, "2100-02-28 23:59"),
            (4_107_542_400_000, "2100-03-01 00:00"),
        ] {
            assert_eq!(date(wall_ms), text);
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.0123, "0.012"),
            (0.25, "0.25"),
            (12.34, "12.3"),
            (431.7, "432"),
            (65_400.0, "65.4k"),
        ] {
            assert_eq!(shown(value), text);
        }
        assert_eq!([nice(0.3), nice(1.0), nice(2.2), nice(7_000.0)], [0.5, 1.0, 5.0, 10_000.0]);
    }

    #[test]
    fn nothing_measured_makes_a_page() {
        let plan = Plan {
            addresses: Vec::new(),
            connections: 1,
            clients: 1,
            pipeline: 1,
            total: 1,
            time_max: None,
            rate: None,
        };
        let page = html(&[("put", plan, Outcome::default())], 0);
        assert!(page.contains("<h2>put</h2>") && !page.contains("NaN") && !page.contains("inf"), "{page}");
    }
}
