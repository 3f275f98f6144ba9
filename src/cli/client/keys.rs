//! put, get and del: the command line's words become the line protocol's, or one line that says why not.
//! The complaints are etcdctl's own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::Failure;
use super::args::{Del, Get, Keys, Put, Watch};
use crate::cli::go;
use crate::cli::output::Format;

type Words = Vec<Vec<u8>>;

fn bad<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::BadArguments(text.into()))
}

fn bytes(word: &OsString) -> Vec<u8> {
    word.as_bytes().to_vec()
}

fn on(flag: Option<bool>) -> bool {
    flag == Some(true)
}

/// `read_value` is asked where the value is not among the words. etcdctl passes over a third word; here it
/// is refused, because `put key two words` loses data in silence.
pub fn put(put: &Put, read_value: impl FnOnce() -> Result<Vec<u8>, Failure>) -> Result<Words, Failure> {
    const USAGE: &str = "put command needs 1 argument and input from stdin or 2 arguments";
    let (key, value) = match put.words.as_slice() {
        [_, _, ..] if on(put.ignore_value) => {
            return bad("put command needs only 1 argument when 'ignore-value' is set");
        }
        [key] if on(put.ignore_value) => (key, Vec::new()),
        [key] => match read_value()? {
            value if value.is_empty() => return bad(USAGE),
            value => (key, value),
        },
        [key, value] => (key, bytes(value)),
        _ => return bad(USAGE),
    };
    let lease = match go::parse_int(&put.lease, 16) {
        // The protocol has no negative numbers, and no lease has one.
        Ok(..0) => return Err(Failure::Usage("etcdserver: requested lease not found".into())),
        Ok(lease) => lease,
        Err(why) => return bad(format!("bad lease ID ({why}), expecting ID in Hex")),
    };
    let mut words = vec![b"PUT".to_vec(), bytes(key), value];
    if lease != 0 {
        words.extend([b"LEASE".to_vec(), lease.to_string().into_bytes()]);
    }
    for (flag, word) in
        [(put.prev_kv, "PREV"), (put.ignore_value, "KEEPVALUE"), (put.ignore_lease, "KEEPLEASE")]
    {
        if on(flag) {
            words.push(word.into());
        }
    }
    Ok(words)
}

pub fn get(get: &Get, format: Format) -> Result<Words, Failure> {
    let words = get_in_txn(get)?;
    if on(get.count_only) && format != Format::Fields {
        return bad("--count-only is only for `--write-out=fields`");
    }
    if on(get.print_value_only) && format != Format::Simple {
        return bad("print-value-only is only for `--write-out=simple`");
    }
    Ok(words)
}

/// In a transaction nobody asks for a format.
pub fn get_in_txn(get: &Get) -> Result<Words, Failure> {
    let mut words = vec![b"RANGE".to_vec()];
    words.extend(span("get", &get.keys, usize::MAX)?);
    if on(get.keys_only) && on(get.count_only) {
        return bad("`--keys-only` and `--count-only` cannot be set at the same time, choose one");
    }
    for (number, word) in [(get.limit, "LIMIT"), (get.rev, "REV")] {
        if number > 0 {
            words.extend([word.into(), number.to_string().into_bytes()]);
        }
    }
    match get.consistency.as_str() {
        "l" => {}
        "s" => words.push("SERIALIZABLE".into()),
        other => return Err(Failure::Feature(format!("unknown consistency flag {other:?}"))),
    }
    if on(get.keys_only) {
        words.push("KEYS".into());
    }
    if on(get.count_only) {
        words.push("COUNT".into());
    }
    match get.order.to_ascii_uppercase().as_str() {
        "" => {}
        "ASCEND" => words.push("ASC".into()),
        "DESCEND" => words.push("DESC".into()),
        _ => return Err(Failure::Feature(format!("bad sort order {}", get.order))),
    }
    let field = match get.sort_by.to_ascii_uppercase().as_str() {
        "" => return Ok(words),
        "CREATE" => "CREATE",
        "KEY" => "KEY",
        "MODIFY" => "MOD",
        "VALUE" => "VALUE",
        "VERSION" => "VERSION",
        _ => return Err(Failure::Feature(format!("bad sort target {}", get.sort_by))),
    };
    words.extend(["BY".into(), field.into()]);
    Ok(words)
}

pub fn del(del: &Del) -> Result<Words, Failure> {
    let mut words = vec![b"DEL".to_vec()];
    words.extend(span("del", &del.keys, 2)?);
    if on(del.prev_kv) {
        words.push("PREV".into());
    }
    Ok(words)
}

/// Refuses an end without a key among the variables.
pub fn check_watched(default: &[OsString]) -> Result<(), Failure> {
    match default {
        [key, end] if key.is_empty() => {
            let end = go::quote(end.as_bytes());
            bad(format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}"))
        }
        _ => Ok(()),
    }
}

/// The words of WATCH but for its id and revision. `default`: what to watch where nothing else is said.
pub fn watch(watch: &Watch, default: &[OsString]) -> Result<Words, Failure> {
    if !watch.words.is_empty() && !default.is_empty() {
        return bad("bad number of arguments (found conflicting environment key)");
    }
    let words = if watch.words.is_empty() { default } else { &watch.words };
    let mut sent = vec![b"WATCH".to_vec()];
    sent.extend(match words {
        [] => return bad("bad number of arguments"),
        [_, _, ..] if on(watch.prefix) => return bad("`range_end` and `--prefix` are mutually exclusive"),
        [key] if on(watch.prefix) => vec![bytes(key), b"PREFIX".to_vec()],
        // etcd's first key of all, where a key is empty.
        [key] if key.is_empty() => vec![vec![0]],
        [key] => vec![bytes(key)],
        [key, end] if end.is_empty() => vec![bytes(key)],
        [key, end] if end.as_bytes() == [0] => vec![bytes(key), b"FROM".to_vec()],
        [key, end] => vec![bytes(key), b"TO".to_vec(), bytes(end)],
        // etcdctl passes over the rest; here it may be a command whose `--` was forgotten.
        _ => return bad("bad number of arguments (a command stands behind `--`)"),
    });
    for (flag, word) in [(watch.prev_kv, "PREV"), (watch.progress_notify, "PROGRESS")] {
        if on(flag) {
            sent.push(word.into());
        }
    }
    Ok(sent)
}

/// `key`, `key TO end`, `key PREFIX` or `key FROM`. An end that is empty means none, and one that is a zero
/// byte means "no end": etcd's conventions, kept for scripts that know them. So is this one: of more than two words
/// a read passes over the third, and a deletion refuses.
fn span(command: &str, keys: &Keys, words_max: usize) -> Result<Words, Failure> {
    if on(keys.prefix) && on(keys.from_key) {
        return bad("`--prefix` and `--from-key` cannot be set at the same time, choose one");
    }
    match keys.words.as_slice() {
        [key] if on(keys.prefix) => Ok(vec![bytes(key), b"PREFIX".to_vec()]),
        [key] if on(keys.from_key) => Ok(vec![bytes(key), b"FROM".to_vec()]),
        [_, ..] if on(keys.prefix) || on(keys.from_key) => {
            bad("too many arguments, only accept one argument when `--prefix` or `--from-key` is set")
        }
        [key] => Ok(vec![bytes(key)]),
        words @ [key, end, ..] if words.len() <= words_max => match end.is_empty() {
            true => Ok(vec![bytes(key)]),
            false => Ok(vec![bytes(key), b"TO".to_vec(), bytes(end)]),
        },
        _ => {
            bad(format!("{command} command needs one argument as key and an optional argument as range_end"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::{self, Command};
    use super::*;
    use crate::cli::values::Environment;

    /// The words sent for a command line, or the exit code and the complaint.
    fn words(line: &[&str], stdin: &str) -> Result<String, String> {
        let line: Vec<OsString> = line.iter().map(OsString::from).collect();
        let Ok(Ok((options, command))) = args::read("etcdctl", &line, &Environment::new()) else {
            panic!("{line:?} is understood");
        };
        let words = match &command {
            Command::Put(put) => super::put(put, || Ok(stdin.into())),
            Command::Get(get) => super::get(get, options.format),
            Command::Del(del) => super::del(del),
            other => panic!("{other:?} has no keys"),
        };
        match words {
            Ok(words) => {
                Ok(words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" "))
            }
            Err(failure) => Err(format!("{} {failure}", failure.exit())),
        }
    }

    #[test]
    fn commands_become_the_protocols() {
        for (line, sent) in [
            (&["put", "a", "b"][..], "PUT a b"),
            (&["put", "a", "b", "--lease=ff", "--prev-kv"], "PUT a b LEASE 255 PREV"),
            (&["put", "a", "--ignore-value", "--ignore-lease"], "PUT a  KEEPVALUE KEEPLEASE"),
            (&["get", "a"], "RANGE a"),
            (&["get", "a", "b"], "RANGE a TO b"),
            (&["get", "a", ""], "RANGE a"),
            (&["get", "a", "b", "c"], "RANGE a TO b"),
            (&["get", "a", "", "c", "d"], "RANGE a"),
            (&["get", "", "--prefix=true"], "RANGE  PREFIX"),
            (&["get", "a", "--from-key", "--limit=3", "--rev=9"], "RANGE a FROM LIMIT 3 REV 9"),
            (&["get", "a", "--consistency=s", "--keys-only"], "RANGE a SERIALIZABLE KEYS"),
            (&["get", "a", "--count-only", "-w", "fields"], "RANGE a COUNT"),
            (&["get", "a", "--order=descend", "--sort-by=modify"], "RANGE a DESC BY MOD"),
            (&["get", "a", "--rev=-1", "--limit=-1"], "RANGE a"),
            (&["del", "a", "--prefix", "--prev-kv"], "DEL a PREFIX PREV"),
            (&["del", "a", "b"], "DEL a TO b"),
        ] {
            assert_eq!(words(line, "").as_deref(), Ok(sent));
        }
        assert_eq!(words(&["put", "a"], "from\nstdin\n").as_deref(), Ok("PUT a from\nstdin\n"));
    }

    /// Recorded from etcdctl 3.5.1, but for the first (see [`super::put`]) and the words in brackets.
    #[test]
    fn complaints_are_etcdctls() {
        const PUT: &str = "128 put command needs 1 argument and input from stdin or 2 arguments";
        const GET: &str = "128 get command needs one argument as key and an optional argument as range_end";
        const ONE: &str =
            "128 too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
        const CHOOSE: &str = "128 `--prefix` and `--from-key` cannot be set at the same time, choose one";
        for (line, complaint) in [
            (&["put", "a", "b", "c"][..], PUT),
            (&["put"], PUT),
            (&["put", "a"], PUT),
            (
                &["put", "a", "b", "--ignore-value"],
                "128 put command needs only 1 argument when 'ignore-value' is set",
            ),
            (
                &["put", "a", "b", "--lease=xyz"],
                "128 bad lease ID (strconv.ParseInt: parsing \"xyz\": invalid syntax), expecting ID in Hex",
            ),
            (&["put", "a", "b", "--lease=-1"], "1 etcdserver: requested lease not found"),
            (&["get"], GET),
            (&["get", "a", "b", "--prefix"], ONE),
            (&["get", "a", "b", "c", "--prefix"], ONE),
            (&["get", "a", "b", "--from-key"], ONE),
            (&["get", "a", "--prefix", "--from-key"], CHOOSE),
            (&["get", "a", "--order=foo"], "4 bad sort order foo"),
            (&["get", "a", "--sort-by=foo"], "4 bad sort target foo"),
            (&["get", "a", "--consistency=foo"], "4 unknown consistency flag \"foo\""),
            (&["get", "a", "--count-only"], "128 --count-only is only for `--write-out=fields`"),
            (
                &["get", "a", "--print-value-only", "-w", "json"],
                "128 print-value-only is only for `--write-out=simple`",
            ),
            (
                &["get", "a", "--keys-only", "--count-only"],
                "128 `--keys-only` and `--count-only` cannot be set at the same time, choose one",
            ),
            (&["del"], "128 del command needs one argument as key and an optional argument as range_end"),
            (
                &["del", "a", "b", "c"],
                "128 del command needs one argument as key and an optional argument as range_end",
            ),
            (&["del", "a", "b", "--prefix"], ONE),
            (&["del", "a", "--prefix", "--from-key"], CHOOSE),
        ] {
            assert_eq!(words(line, "").unwrap_err(), complaint, "{line:?}");
        }
    }
}
