//! Command line and environment become values by flag name. Flag > `PAWL_FOO_BAR` > `ETCD_FOO_BAR` >
//! default. Each value is checked for its kind; how values fit together is the business of [`super::rules`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use super::flag::{Effect, Flag, Kind, nearest};
use super::{flag_table, go};
use crate::base::time::MS;

/// The environment as it was when the process started.
pub type Environment = BTreeMap<String, String>;

/// Why a process does not start: one line for people, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub exit: u8,
    pub line: String,
}

impl Refusal {
    /// A value that cannot be, or two that cannot be together.
    pub fn value(line: impl Into<String>) -> Refusal {
        Refusal { exit: 1, line: line.into() }
    }

    /// A flag that does not exist.
    pub fn unknown(line: impl Into<String>) -> Refusal {
        Refusal { exit: 2, line: line.into() }
    }
}

/// Where a value came from, as it should be named to the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Flag(String),
    Variable(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(name) => write!(f, "--{name}"),
            Source::Variable(name) => f.write_str(name),
        }
    }
}

#[derive(Debug, Default)]
pub struct Values {
    given: BTreeMap<&'static str, (String, Source)>,
    /// What to tell the operator once there is a log.
    pub warnings: Vec<String>,
}

impl Values {
    /// Reads `words` (without the program's name) and the environment.
    pub fn read(words: &[OsString], environment: &Environment) -> Result<Values, Refusal> {
        let mut values = Values::default();
        values.read_words(words)?;
        // Who asks for help or the version shall get it, whatever else is wrong.
        if !values.bool("help") && !values.bool("version") {
            let from_flags = std::mem::take(&mut values.given);
            values.read_environment(environment)?;
            values.given.extend(from_flags);
        }
        values.warn_of_what_is_ignored();
        Ok(values)
    }

    /// The value in effect; `name` must be in the table.
    pub fn text(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some((value, _)) => value,
            None => flag_table::find(name).unwrap_or_else(|| panic!("--{name} is in the table")).default,
        }
    }

    pub fn bool(&self, name: &str) -> bool {
        go::parse_bool(self.text(name)).expect("checked when it was read")
    }

    pub fn number(&self, name: &str) -> i64 {
        self.text(name).parse().expect("checked when it was read")
    }

    /// A number whose kind in the table excludes negative ones.
    pub fn count(&self, name: &str) -> u64 {
        u64::try_from(self.number(name)).expect("the table excludes negative numbers")
    }

    pub fn duration_ms(&self, name: &str) -> u64 {
        go::parse_duration(self.text(name)).expect("checked when it was read") / MS
    }

    /// Given by flag or environment, not by default.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// How to name this value in a message: where it came from, or the flag.
    pub fn source(&self, name: &str) -> Source {
        self.given.get(name).map_or_else(|| Source::Flag(name.into()), |(_, source)| source.clone())
    }

    fn read_words(&mut self, words: &[OsString]) -> Result<(), Refusal> {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(word) = word.to_str() else {
                return Err(Refusal::value(format!("{word:?} is not UTF-8")));
            };
            let Some(body) =
                word.strip_prefix("--").or(word.strip_prefix('-')).filter(|body| !body.is_empty())
            else {
                return Err(stray(word));
            };
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            let Some(flag) = flag_table::find(name) else { return Err(unknown_flag(name)) };
            let value = match (value, flag.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true".into(),
                (None, _) => match words.next().map(|next| next.to_str().map(str::to_owned)) {
                    Some(Some(next)) => next,
                    Some(None) => return Err(Refusal::value(format!("--{name}: the value is not UTF-8"))),
                    None => return Err(Refusal::value(format!("--{name} needs a value"))),
                },
            };
            self.take(flag, value, Source::Flag(name.into()))?;
        }
        Ok(())
    }

    /// `PAWL_` wins over `ETCD_`. An empty variable counts as not set, as in etcd: unit files and container
    /// manifests set variables to nothing to mean "the default".
    fn read_environment(&mut self, environment: &Environment) -> Result<(), Refusal> {
        for prefix in ["ETCD_", "PAWL_"] {
            for (variable, value) in environment.iter().filter(|(_, value)| !value.is_empty()) {
                let Some(rest) = variable.strip_prefix(prefix) else { continue };
                let name = rest.to_ascii_lowercase().replace('_', "-");
                match flag_table::find(&name) {
                    // Images like to say ETCD_VERSION=3.5.1 about themselves.
                    Some(flag) if matches!(flag.name, "help" | "version") => {}
                    Some(flag) => self.take(flag, value.clone(), Source::Variable(variable.clone()))?,
                    None if rest == "UNSUPPORTED_ARCH" => {}
                    None => self.warnings.push(format!("the environment variable {variable} names no flag")),
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, flag: &'static Flag, value: String, source: Source) -> Result<(), Refusal> {
        if let Err(expected) = flag.kind.check(&value) {
            return Err(Refusal::value(format!("{source}: expected {expected}, found {value:?}")));
        }
        if let Effect::Refused(why) = flag.effect
            && value != flag.default
        {
            return Err(Refusal::value(format!("{source}: {why}")));
        }
        self.given.insert(flag.name, (value, source));
        Ok(())
    }

    fn warn_of_what_is_ignored(&mut self) {
        for (name, (_, source)) in &self.given {
            let flag = flag_table::find(name).expect("only flags of the table are taken");
            if flag.effect == Effect::Ignored {
                self.warnings
                    .push(format!("{source} is accepted for compatibility and has no effect here yet"));
            }
        }
    }
}

fn stray(word: &str) -> Refusal {
    let hint = match go::parse_bool(word) {
        Some(_) => "; a boolean flag takes its value as --flag=value",
        None => "",
    };
    Refusal::value(format!("'{word}' is not a valid flag{hint}"))
}

fn unknown_flag(name: &str) -> Refusal {
    let listed = flag_table::listed().map(|flag| flag.name);
    let hint = match nearest(name, listed) {
        Some(near) => format!("; did you mean --{near}?"),
        None => "; --help lists the flags".into(),
    };
    Refusal::unknown(format!("unknown flag --{name}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str, environment: &[(&str, &str)]) -> Result<Values, Refusal> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Values::read(&words, &environment)
    }

    #[test]
    fn the_forms_of_a_flag() {
        for words in ["-name x", "-name=x", "--name x", "--name=x", "--name=y --name x"] {
            assert_eq!(read(words, &[]).unwrap().text("name"), "x", "{words}");
        }
        assert_eq!(read("--name=a=b", &[]).unwrap().text("name"), "a=b");
        for (words, on) in
            [("", true), ("--pre-vote", true), ("-pre-vote=false", false), ("--pre-vote=F", false)]
        {
            assert_eq!(read(words, &[]).unwrap().bool("pre-vote"), on, "{words}");
        }
    }

    #[test]
    fn a_boolean_never_takes_the_next_word() {
        let refusal = read("--pre-vote false", &[]).unwrap_err();
        assert_eq!(refusal.exit, 1);
        assert_eq!(
            refusal.line,
            "'false' is not a valid flag; a boolean flag takes its value as --flag=value"
        );
    }

    #[test]
    fn flag_beats_our_variable_beats_theirs() {
        let both = [("ETCD_NAME", "etcd"), ("PAWL_NAME", "pawl")];
        assert_eq!(read("--name flag", &both).unwrap().text("name"), "flag");
        assert_eq!(read("", &both).unwrap().text("name"), "pawl");
        assert_eq!(read("", &both[..1]).unwrap().text("name"), "etcd");
        assert_eq!(read("", &[("PAWL_NAME", ""), ("ETCD_NAME", "etcd")]).unwrap().text("name"), "etcd");
        assert_eq!(read("", &[]).unwrap().text("name"), "default");
    }

    #[test]
    fn a_bad_value_is_named_by_where_it_came_from() {
        let cases = [
            (
                "--heartbeat-interval abc",
                "--heartbeat-interval: expected a number from 1 to 50000, found \"abc\"",
            ),
            (
                "--heartbeat-interval=0",
                "--heartbeat-interval: expected a number from 1 to 50000, found \"0\"",
            ),
            ("--pre-vote=maybe", "--pre-vote: expected true or false, found \"maybe\""),
            (
                "--initial-cluster-state old",
                "--initial-cluster-state: expected one of new, existing, found \"old\"",
            ),
            ("--max-wals x", "--max-wals: expected a number of at least 0, found \"x\""),
            ("--name", "--name needs a value"),
            ("start", "'start' is not a valid flag"),
            ("-", "'-' is not a valid flag"),
            ("--", "'--' is not a valid flag"),
        ];
        for (words, line) in cases {
            assert_eq!(read(words, &[]).unwrap_err(), Refusal::value(line), "{words}");
        }
        let refusal = read("", &[("ETCD_ELECTION_TIMEOUT", "1s")]).unwrap_err();
        assert_eq!(refusal.line, "ETCD_ELECTION_TIMEOUT: expected a number from 1 to 50000, found \"1s\"");
    }

    #[test]
    fn unknown_flags_get_a_hint() {
        assert_eq!(
            read("--data-dri=/x", &[]).unwrap_err(),
            Refusal::unknown("unknown flag --data-dri; did you mean --data-dir?")
        );
        assert_eq!(
            read("--frobnicate", &[]).unwrap_err(),
            Refusal::unknown("unknown flag --frobnicate; --help lists the flags")
        );
    }

    #[test]
    fn what_does_not_apply_is_said() {
        let values = read(
            "--experimental-corrupt-check-time 5m --enable-v2",
            &[("ETCD_MAX_WALS", "9"), ("PAWL_NAM", "x")],
        )
        .unwrap();
        assert_eq!(
            values.warnings,
            [
                "the environment variable PAWL_NAM names no flag",
                "--experimental-corrupt-check-time is accepted for compatibility and has no effect here yet",
                "--enable-v2 is accepted for compatibility and has no effect here yet",
                "ETCD_MAX_WALS is accepted for compatibility and has no effect here yet",
            ]
        );
        assert!(read("--discovery=", &[]).unwrap().warnings.is_empty());
        let refusal = read("--discovery=http://d", &[]).unwrap_err();
        assert_eq!(
            refusal.line,
            "--discovery: discovery is not available yet, and without it this would be a cluster of its own: use --initial-cluster"
        );
    }

    #[test]
    fn an_alias_sets_its_flag() {
        let values = read("--experimental-snapshot-catch-up-entries 7", &[]).unwrap();
        assert_eq!(values.count("snapshot-catchup-entries"), 7);
        assert!(read("-h", &[]).unwrap().bool("help"));
    }

    #[test]
    fn help_and_version_are_never_in_the_way() {
        assert!(read("--help", &[("ETCD_HEARTBEAT_INTERVAL", "x")]).unwrap().bool("help"));
        assert!(!read("", &[("ETCD_VERSION", "3.5.1")]).unwrap().bool("version"));
    }
}
