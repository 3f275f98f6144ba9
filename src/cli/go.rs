//! The few conventions of Go's standard library that show in etcd's command lines and output: booleans,
//! durations, quoted strings, byte counts. Written from their documentation, held to it by recorded output.

use std::ffi::OsStr;
use std::io::{Error, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::base::time::{MS, Nanos, SECOND};

/// The spellings that Go's flags accept for a boolean.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// As `strconv.ParseInt` reads a number of 64 bits, and complains.
pub fn parse_int(text: &str, radix: u32) -> Result<i64, String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let fault = |what: &str| Err(format!("strconv.ParseInt: parsing {}: {what}", quote(text.as_bytes())));
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return fault("invalid syntax");
    }
    i64::from_str_radix(text, radix).or_else(|_| fault("value out of range"))
}

/// A sum of decimal numbers with units, such as `1h15m30.918s`; only `0` may lack one. Not negative here:
/// no flag of ours means anything by that.
pub fn parse_duration(text: &str) -> Option<Nanos> {
    if text == "0" {
        return Some(0);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total: Nanos = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) =
            tail.split_at(tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len()));
        let unit: Nanos = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => MS,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: Nanos = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let mut scale = unit;
        for digit in fraction.bytes() {
            if !digit.is_ascii_digit() {
                return None; // a second point
            }
            scale /= 10;
            total = total.checked_add(Nanos::from(digit - b'0') * scale)?;
        }
        rest = tail;
    }
    Some(total)
}

/// As Go prints a duration: `0s`, `758.1µs`, `2.601535ms`, `1m2.5s`.
pub fn duration(nanos: Nanos) -> String {
    let decimal = |value: Nanos, unit: Nanos| {
        let fraction = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let whole = value / unit;
        if unit == 1 || fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..MS => format!("{}µs", decimal(nanos, 1_000)),
        MS..SECOND => format!("{}ms", decimal(nanos, MS)),
        _ => {
            let minutes = nanos / (60 * SECOND);
            let seconds = decimal(nanos % (60 * SECOND), SECOND);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// As Go's `%q` prints a string of any bytes: printable characters stay, the rest is escaped.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(c, &mut out);
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// Takes a string as Go's `%q` reads it, in double quotes or in back quotes, from the front. The string and what is behind
/// it; None where there is none.
pub fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    if let Some(raw) = text.strip_prefix(b"`") {
        let end = raw.iter().position(|&byte| byte == b'`')?;
        return Some((raw[..end].to_vec(), &raw[end + 1..]));
    }
    let mut rest = text.strip_prefix(b"\"")?;
    let mut out = Vec::new();
    loop {
        let (&byte, behind) = rest.split_first()?;
        rest = behind;
        match byte {
            b'"' => return Some((out, rest)),
            b'\n' => return None,
            b'\\' => rest = unescape(rest, &mut out)?,
            byte => out.push(byte),
        }
    }
}

/// What stands behind a backslash.
fn unescape<'t>(text: &'t [u8], out: &mut Vec<u8>) -> Option<&'t [u8]> {
    let (&kind, rest) = text.split_first()?;
    let number = |digits: &[u8], radix| {
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.contains(['+', '-']))?;
        u32::from_str_radix(digits, radix).ok()
    };
    let plain = match kind {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' | b'"' => kind,
        b'x' => {
            out.push(u8::try_from(number(rest.get(..2)?, 16)?).ok()?);
            return Some(&rest[2..]);
        }
        b'0'..=b'7' => {
            out.push(u8::try_from(number(text.get(..3)?, 8)?).ok()?);
            return Some(&text[3..]);
        }
        b'u' | b'U' => {
            let digits = if kind == b'u' { 4 } else { 8 };
            let c = char::from_u32(number(rest.get(..digits)?, 16)?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(&rest[digits..]);
        }
        _ => return None,
    };
    out.push(plain);
    Some(rest)
}

fn quote_char(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        c if is_print(c) => out.push(c),
        c if c < ' ' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
    }
}

/// Go prints letters, marks, numbers, punctuation, symbols and the ASCII space. The standard library has no
/// table of categories, but its debug form escapes what is not printable; it also escapes combining marks
/// (Go does not), which it tells apart only in that they are printed when they follow another character.
fn is_print(c: char) -> bool {
    if c.is_control() || (c.is_whitespace() && c != ' ') {
        return false;
    }
    let in_a_string: String = ['a', c].iter().collect::<String>().escape_debug().skip(1).collect();
    c == '\'' || in_a_string.chars().eq([c])
}

/// As etcdctl prints a size: powers of 1000, two digits.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let value = (value * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// How a command ended that did not end well.
pub fn ending(status: ExitStatus) -> String {
    const SIGNALS: [&str; 15] = [
        "hangup",
        "interrupt",
        "quit",
        "illegal instruction",
        "trace/breakpoint trap",
        "aborted",
        "bus error",
        "floating point exception",
        "killed",
        "user defined signal 1",
        "segmentation fault",
        "user defined signal 2",
        "broken pipe",
        "alarm clock",
        "terminated",
    ];
    let Some(signal) = status.signal() else {
        return format!("exit status {}", status.code().unwrap_or_default());
    };
    let name = usize::try_from(signal - 1).ok().and_then(|at| SIGNALS.get(at));
    let name = name.map_or_else(|| format!("signal {signal}"), |name| (*name).to_owned());
    format!("signal: {name}{}", if status.core_dumped() { " (core dumped)" } else { "" })
}

/// Why a command could not be run.
pub fn not_run(program: &OsStr, why: &Error) -> String {
    let name = program.as_bytes();
    if !name.contains(&b'/') && why.kind() == ErrorKind::NotFound {
        return format!("exec: {}: executable file not found in $PATH", quote(name));
    }
    let text = why.to_string();
    let text = text.split_once(" (os error").map_or(&*text, |(text, _)| text);
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    format!("fork/exec {}: {}{rest}", program.to_string_lossy(), first.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_fail() {
        for (status, text) in [
            (7 << 8, "exit status 7"),
            (9, "signal: killed"),
            (15, "signal: terminated"),
            (11 | 0x80, "signal: segmentation fault (core dumped)"),
            (40, "signal: signal 40"),
        ] {
            assert_eq!(ending(ExitStatus::from_raw(status)), text);
        }
        let why = |number| Error::from_raw_os_error(number);
        assert_eq!(not_run(OsStr::new("/x"), &why(2)), "fork/exec /x: no such file or directory");
        assert_eq!(not_run(OsStr::new("./x"), &why(13)), "fork/exec ./x: permission denied");
        assert_eq!(not_run(OsStr::new("x"), &why(2)), "exec: \"x\": executable file not found in $PATH");
    }

    #[test]
    fn durations_in() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("5s", Some(5 * SECOND)),
            ("1m30s", Some(90 * SECOND)),
            ("1.5h", Some(5400 * SECOND)),
            (".5s", Some(500 * MS)),
            ("300ms", Some(300 * MS)),
            ("2us", Some(2_000)),
            ("", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("99999999999999999999s", None),
            ("5 s", None),
        ] {
            assert_eq!(parse_duration(text), nanos, "{text:?}");
        }
    }

    #[test]
    fn durations_out() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (758_100, "758.1µs"),
            (2_601_535, "2.601535ms"),
            (8_813_730, "8.81373ms"),
            (1_000_337_540, "1.00033754s"),
            (62_500 * MS, "1m2.5s"),
            (3600 * SECOND, "1h0m0s"),
        ] {
            assert_eq!(duration(nanos), text);
        }
    }

    /// The strings are recorded from etcdctl 3.5.1 `-w fields`.
    #[test]
    fn strings_out() {
        assert_eq!(quote(b"a\x01\n\"\xc3\xa9\xff"), "\"a\\x01\\n\\\"é\\xff\"");
        assert_eq!(
            quote("x\ty\u{a0}z\u{200b}\u{301}\u{7f}\\".as_bytes()),
            "\"x\\ty\\u00a0z\\u200b\u{301}\\u007f\\\\\""
        );
        assert_eq!(quote(b"it's"), "\"it's\"");
    }

    #[test]
    fn strings_in() {
        for (text, string, behind) in [
            (r#""""#, &b""[..], ""),
            (r#""a b") = "c""#, b"a b", r#") = "c""#),
            (r#""\a\b\f\n\r\t\v\\\"" "#, b"\x07\x08\x0c\n\r\t\x0b\\\"", " "),
            (r#""\x00\xff\101\u00e9\U0001f600é""#, b"\0\xffA\xc3\xa9\xf0\x9f\x98\x80\xc3\xa9", ""),
            ("`a\\n\"`x", b"a\\n\"", "x"),
        ] {
            assert_eq!(unquote(text.as_bytes()), Some((string.to_vec(), behind.as_bytes())), "{text}");
        }
        for bad in [
            "",
            "a",
            "\"",
            "\"a",
            "`a",
            r#""\q""#,
            r#""\xg0""#,
            r#""\x+1""#,
            r#""\777""#,
            r#""\ud800""#,
            r#""a\"#,
            "\"a\nb\"",
        ] {
            assert_eq!(unquote(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn sizes_out() {
        for (bytes, text) in
            [(9, "9 B"), (82, "82 B"), (20_480, "20 kB"), (1_500, "1.5 kB"), (82_854_982, "83 MB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
