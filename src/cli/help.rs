//! `--help` of the server, generated from the table of flags.

use std::fmt::Write;

use super::flag::{Effect, Flag, Group};
use super::flag_table::GROUPS;

/// `program`: the name that was typed.
pub fn server(program: &str) -> String {
    let mut out = format!(
        "Usage:

  {program} [flags]
    Start a server.

  {program} ctl <command>
    Talk to a server (also as pawlctl or etcdctl).

  {program} util <command>
    Check files of a stopped server (also as pawlutl or etcdutl).

  {program} check disk
    Measure a disk, and say which size of cluster it carries.

  {program} bench
    Load a cluster, and say how fast it answered.

  {program} --version
    Show the version.

  {program} -h | --help
    Show this text.

Every flag has an environment variable: --foo-bar is PAWL_FOO_BAR, or else ETCD_FOO_BAR. A flag wins over both.
"
    );
    for Group { title, flags } in GROUPS {
        if flags.iter().any(|flag| flag.effect == Effect::Applies) {
            let _ = write!(out, "\n{title}:\n");
        }
        for flag in flags.iter().filter(|flag| flag.effect == Effect::Applies) {
            let Flag { name, default, help, .. } = flag;
            let _ = write!(out, "  --{name} '{default}'\n    {help}\n");
        }
    }
    out.push_str("\nAccepted from etcd command lines, without effect here yet:\n");
    listing(&mut out, |effect| effect == Effect::Ignored);
    out.push_str("\nKnown from etcd and refused, because starting without them would do something else:\n");
    for flag in GROUPS.iter().flat_map(|group| group.flags) {
        if let Effect::Refused(why) = flag.effect {
            let _ = write!(out, "  --{}\n    {why}\n", flag.name);
        }
    }
    out
}

/// The names of some flags, wrapped.
fn listing(out: &mut String, wanted: impl Fn(Effect) -> bool) {
    const COLUMNS: usize = 100;
    let mut column = COLUMNS;
    for flag in GROUPS.iter().flat_map(|group| group.flags).filter(|flag| wanted(flag.effect)) {
        if column + flag.name.len() + 3 > COLUMNS {
            out.push_str(if column == COLUMNS { " " } else { "\n " });
            column = 1;
        }
        let _ = write!(out, " --{}", flag.name);
        column += flag.name.len() + 3;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::flag_table;
    use super::*;

    #[test]
    fn every_listed_flag_is_in_the_help() {
        let text = server("pawld");
        for flag in flag_table::listed() {
            assert!(text.contains(&format!("--{}", flag.name)), "{}", flag.name);
        }
        for line in text.lines().filter(|line| line.starts_with("  --")) {
            assert!(!line.ends_with(' '), "{line:?}");
        }
        assert!(text.contains("  --heartbeat-interval '100'\n    Milliseconds between heartbeats.\n"));
        assert!(text.contains("  --config-file\n    configuration files are not read yet, and without"));
    }
}
