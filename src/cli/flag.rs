//! What a server flag is. The flags themselves are in [`super::flag_table`].
//!
//! Why a table of our own and not clap: the command lines that people carry over from etcd are Go's, and
//! Go's rules differ where it hurts. `-name x` is `--name x` (one dash or two, never a cluster of letters);
//! a boolean never takes the next word, so `--pre-vote false` is a flag and a stray word; the last of two
//! wins; and every flag has an environment variable. With one table the parser, the environment, the help
//! text, the warnings and `CONFIG GET` cannot drift apart.

use super::forms::Form;
use super::go;

/// Where a flag is listed in `--help`.
pub struct Group {
    pub title: &'static str,
    pub flags: &'static [Flag],
}

pub struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    /// As typed on a command line, and as shown by `--help`.
    pub default: &'static str,
    pub effect: Effect,
    pub help: &'static str,
}

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Go's spellings of true and false. Without a value: true. Never takes the next word.
    Bool,
    /// A decimal number in `min..=max`.
    Number {
        min: i64,
        max: i64,
    },
    /// Go's durations: `100ms`, `1m30s`, `0`.
    Duration,
    /// The same, and more than nothing.
    Period,
    /// One of these words. An empty one among them means that nothing is a value, too.
    Word(&'static [&'static str]),
    Form(Form),
    Text,
}

/// What a flag does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Applies,
    /// Checked and otherwise without effect; a warning says so. The server without it is what etcd's would
    /// be, only less tuned or less observable.
    Ignored,
    /// To go on without it would do something else than what was asked for (start another cluster, skip a
    /// configuration): the start is refused unless the value asks for nothing. Says what is missing.
    Refused(&'static str),
}

pub const ANY_NUMBER: Kind = Kind::Number { min: i64::MIN, max: i64::MAX };
pub const COUNT: Kind = Kind::Number { min: 0, max: i64::MAX };

pub const fn applies(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, effect: Effect::Applies, help }
}

pub const fn ignored(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, effect: Effect::Ignored, help }
}

pub const fn refused(name: &'static str, kind: Kind, default: &'static str, missing: &'static str) -> Flag {
    Flag { name, kind, default, effect: Effect::Refused(missing), help: missing }
}

impl Kind {
    /// Says what was expected where `value` is not of this kind.
    pub fn check(self, value: &str) -> Result<(), String> {
        match self {
            Kind::Text => Ok(()),
            Kind::Bool => go::parse_bool(value).map(|_| ()).ok_or_else(|| "true or false".into()),
            Kind::Duration => go::parse_duration(value)
                .map(|_| ())
                .ok_or_else(|| "a duration such as 100ms or 1m30s".into()),
            Kind::Period => match go::parse_duration(value) {
                Some(nanos) if nanos > 0 => Ok(()),
                _ => Err("a duration above 0 such as 100ms or 1m30s".into()),
            },
            Kind::Word(words) if words.contains(&value) => Ok(()),
            Kind::Word(words) => {
                let named: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
                Err(format!("one of {}", named.join(", ")))
            }
            Kind::Form(form) => form.check(value),
            Kind::Number { min, max } => match value.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                _ => Err(match (min, max) {
                    (i64::MIN, i64::MAX) => "a number".into(),
                    (min, i64::MAX) => format!("a number of at least {min}"),
                    (min, max) => format!("a number from {min} to {max}"),
                }),
            },
        }
    }
}

/// The name in `names` that was probably meant: the nearest by edit distance, if near enough.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    names
        .map(|name| (distance(word, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein's distance, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_name_what_they_expect() {
        assert_eq!(Kind::Bool.check("TRUE"), Ok(()));
        assert_eq!(Kind::Bool.check("yes"), Err("true or false".into()));
        let number = Kind::Number { min: 1, max: 9 };
        assert_eq!(number.check("9"), Ok(()));
        assert_eq!(number.check("10"), Err("a number from 1 to 9".into()));
        assert_eq!(COUNT.check("99999999999999999999"), Err("a number of at least 0".into()));
        assert_eq!(Kind::Word(&["a", "b"]).check("c"), Err("one of a, b".into()));
        assert_eq!(Kind::Word(&["a", ""]).check(""), Ok(()));
        assert_eq!(Kind::Word(&["a", ""]).check("c"), Err("one of a".into()));
        assert!(Kind::Duration.check("5 parsecs").is_err());
        assert!(Kind::Duration.check("0s").is_ok() && Kind::Period.check("0s").is_err());
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let names = || ["data-dir", "name", "election-timeout"].into_iter();
        assert_eq!(nearest("data-dirs", names()), Some("data-dir"));
        assert_eq!(nearest("electiontimeout", names()), Some("election-timeout"));
        assert_eq!(nearest("nam", names()), Some("name"));
        assert_eq!(nearest("zzz", names()), None);
        assert_eq!((distance("", "abc"), distance("kitten", "sitting")), (3, 3));
    }
}
