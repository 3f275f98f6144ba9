//! A transaction in etcdctl's grammar, from standard input: lines of compares, of requests, and of other requests, each list
//! ended by a blank line. It becomes one TXN of the line protocol. The complaints are etcdctl's own; where it fails with
//! a trace of its stack (an unknown operator), it is one of the others.

use std::ffi::OsString;
use std::io::BufRead;
use std::os::unix::ffi::OsStringExt;

use super::Failure;
use super::args::{self, TxnRequest};
use super::keys;
use super::reply::Kind;
use super::session::Question;
use crate::cli::{Console, go};

type Words = Vec<Vec<u8>>;

/// The requests of one branch.
#[derive(Debug, Default)]
pub struct Branch {
    words: Words,
    pub kinds: Vec<Kind>,
}

#[derive(Debug, Default)]
pub struct Txn {
    compares: Words,
    pub success: Branch,
    pub failure: Branch,
}

impl Txn {
    /// One without a write may be asked twice.
    pub fn question(&self) -> Question {
        let Txn { compares, success, failure } = self;
        let word = |word: &str| vec![word.as_bytes().to_vec()];
        let words = [
            &word("TXN"),
            &word("IF"),
            compares,
            &word("THEN"),
            &success.words,
            &word("ELSE"),
            &failure.words,
            &word("END"),
        ];
        let words = words.into_iter().flatten().cloned().collect();
        let repeatable = success.kinds.iter().chain(&failure.kinds).all(|kind| *kind == Kind::Get);
        Question { words, repeatable }
    }
}

pub fn read(args: &args::Txn, input: &mut dyn BufRead, console: &mut Console) -> Result<Txn, Failure> {
    if !args.words.is_empty() {
        return Err(Failure::BadArguments("txn command does not accept argument".into()));
    }
    let mut prompt = |line: &str| {
        if args.interactive == Some(true) {
            console.print(line.as_bytes());
        }
    };
    let mut txn = Txn::default();
    prompt("compares:\n");
    while let Some(line) = next_line(input)? {
        txn.compares.extend(compare(&line)?);
    }
    prompt("success requests (get, put, del):\n");
    txn.success = branch(input)?;
    prompt("failure requests (get, put, del):\n");
    txn.failure = branch(input)?;
    Ok(txn)
}

fn branch(input: &mut dyn BufRead) -> Result<Branch, Failure> {
    let mut branch = Branch::default();
    while let Some(line) = next_line(input)? {
        let (words, kind) = request(&line)?;
        branch.words.extend(words);
        branch.kinds.push(kind);
    }
    Ok(branch)
}

/// A line without the blanks around it; None: it has nothing else.
fn next_line(input: &mut dyn BufRead) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).map_err(|error| Failure::Input(error.to_string()))?;
    if line.pop() != Some(b'\n') {
        // Who is cut off in the middle has not said everything.
        return Err(Failure::Input("EOF".into()));
    }
    let line = line.trim_ascii();
    Ok((!line.is_empty()).then(|| line.to_vec()))
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

/// `mod("key") = "0"`
fn compare(line: &[u8]) -> Result<Words, Failure> {
    let malformed = |why: &str| Failure::Input(format!("malformed comparison: {}{why}", text(line)));
    let parts = || {
        let open = line.iter().position(|&byte| byte == b'(')?;
        let (key, rest) = go::unquote(line[open + 1..].trim_ascii_start())?;
        let rest = rest.strip_prefix(b")")?.trim_ascii_start();
        let result_bytes = rest.iter().position(u8::is_ascii_whitespace)?;
        let (operand, _) = go::unquote(rest[result_bytes..].trim_ascii_start())?;
        Some((&line[..open], key, &rest[..result_bytes], operand))
    };
    let (target, key, result, operand) = parts().ok_or_else(|| malformed(""))?;
    let number = |radix: u32| {
        let number =
            std::str::from_utf8(&operand).ok().and_then(|text| i64::from_str_radix(text, radix).ok());
        let wrong = || Failure::Input(format!("invalid txn compare request: {}", text(line)));
        number.map(|number| number.to_string().into_bytes()).ok_or_else(wrong)
    };
    let (target, operand) = match target {
        b"ver" | b"version" => ("VERSION", number(10)?),
        b"c" | b"create" => ("CREATE", number(10)?),
        b"m" | b"mod" => ("MOD", number(10)?),
        b"lease" => ("LEASE", number(16)?),
        b"val" | b"value" => ("VALUE", operand),
        other => return Err(malformed(&format!(" (unknown target {})", text(other)))),
    };
    if ![&b"="[..], b"!=", b"<", b">"].contains(&result) {
        return Err(malformed(&format!(" (unknown operator {})", text(result))));
    }
    Ok(vec![target.into(), key, result.to_vec(), operand])
}

/// `put key "a value"`
fn request(line: &[u8]) -> Result<(Words, Kind), Failure> {
    let words = split(line)?;
    if words.len() < 2 {
        return Err(Failure::Input(format!("invalid txn compare request: {}", text(line))));
    }
    let words = words.into_iter().map(OsString::from_vec).collect();
    let request = TxnRequest::read(words);
    let request = request.ok_or_else(|| Failure::Input(format!("invalid txn request: {}", text(line))))?;
    Ok(match &request {
        // The rest of standard input is the transaction's.
        TxnRequest::Put(put) => (keys::put(put, || Ok(Vec::new()))?, Kind::Put),
        TxnRequest::Get(get) => (keys::get_in_txn(get)?, Kind::Get),
        TxnRequest::Del(del) => (keys::del(del)?, Kind::Del),
    })
}

/// Words parted by blanks; in double quotes as Go writes a string, in single ones as it stands.
fn split(line: &[u8]) -> Result<Words, Failure> {
    let open = || Failure::Input(format!("invalid txn request: {}", text(line)));
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while let Some(first) = rest.first() {
        let word = match first {
            b'"' => {
                let (word, behind) = go::unquote(rest).ok_or_else(open)?;
                rest = behind;
                word
            }
            b'\'' => {
                let end = rest[1..].iter().position(|&byte| byte == b'\'').ok_or_else(open)?;
                let word = rest[1..=end].to_vec();
                rest = &rest[end + 2..];
                word
            }
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                let word = rest[..end].to_vec();
                rest = &rest[end..];
                word
            }
        };
        words.push(word);
        rest = rest.trim_ascii_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words sent for an input, or the exit code and the complaint; and whether it may be sent twice.
    fn words(input: &str) -> Result<(String, bool), String> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console { out: &mut out, err: &mut err };
        let args = args::Txn { words: Vec::new(), interactive: None };
        let txn = read(&args, &mut input.as_bytes(), &mut console)
            .map_err(|failure| format!("{} {failure}", failure.exit()))?;
        assert!(out.is_empty(), "nobody asked to be prompted");
        let Question { words, repeatable } = txn.question();
        Ok((words.iter().map(|word| text(word)).collect::<Vec<_>>().join(" "), repeatable))
    }

    #[test]
    fn lines_become_one_request() {
        for (input, sent, repeatable) in [
            ("\n\n\n", "TXN IF THEN ELSE END", true),
            (
                "mod(\"a\") > \"0\"\nm(\"a\") < \"+7\"\nver(\"b\") = \"-1\"\nversion(\"b\") != \"2\"\nc(\"c\") = \"0\"\n\
                 create(\"c\") = \"1\"\nlease(\"d\") = \"ff\"\nval(\"e\") = \"\"\nvalue(\"e\") = \"x y\"\n\n\n\n",
                "TXN IF MOD a > 0 MOD a < 7 VERSION b = -1 VERSION b != 2 CREATE c = 0 CREATE c = 1 LEASE d = 255 \
                 VALUE e =  VALUE e = x y THEN ELSE END",
                true,
            ),
            (
                "  mod(\"a b\\\"\\x41\")   =  \"0\" and more\n\t\n get a\n \nget a b --limit=2 -- \n\n",
                "TXN IF MOD a b\"A = 0 THEN RANGE a ELSE RANGE a TO b LIMIT 2 END",
                true,
            ),
            (
                "\nput a \"b c\" --prev-kv --lease=1f\nput 'x\\n' 'y \"z\"'\nput k --ignore-value\n\n\
                 del a --prefix\nde b c --prev-kv=true\nget a --from-key --rev=3 --keys-only\n\n",
                "TXN IF THEN PUT a b c LEASE 31 PREV PUT x\\n y \"z\" PUT k  KEEPVALUE ELSE DEL a PREFIX \
                 DEL b TO c PREV RANGE a FROM REV 3 KEYS END",
                false,
            ),
            ("\nget a --count-only\n\n\n", "TXN IF THEN RANGE a COUNT ELSE END", true),
            ("\nput THEN ELSE\n\n\n", "TXN IF THEN PUT THEN ELSE ELSE END", false),
        ] {
            assert_eq!(words(input), Ok((sent.into(), repeatable)), "{input}");
        }
    }

    /// Recorded from etcdctl 3.5.1, but for what it says behind a malformed comparison, and where it ends in a trace.
    #[test]
    fn complaints_are_etcdctls() {
        for (input, complaint) in [
            ("", "3 EOF"),
            ("\n\n", "3 EOF"),
            ("mod(\"a\") = \"0\"", "3 EOF"),
            ("\nput a b", "3 EOF"),
            ("x(\"foo\") = \"0\"\n", "3 malformed comparison: x(\"foo\") = \"0\" (unknown target x)"),
            ("mod(foo) = \"0\"\n", "3 malformed comparison: mod(foo) = \"0\""),
            ("mod(\"foo\" = \"0\"\n", "3 malformed comparison: mod(\"foo\" = \"0\""),
            ("mod = \"0\"\n", "3 malformed comparison: mod = \"0\""),
            ("mod(\"foo\") =\n", "3 malformed comparison: mod(\"foo\") ="),
            ("mod(\"foo\") = 0\n", "3 malformed comparison: mod(\"foo\") = 0"),
            (
                "mod(\"foo\") == \"0\"\n",
                "3 malformed comparison: mod(\"foo\") == \"0\" (unknown operator ==)",
            ),
            ("mod(\"foo\") = \"x\"\n", "3 invalid txn compare request: mod(\"foo\") = \"x\""),
            ("mod(\"foo\") = \"\"\n", "3 invalid txn compare request: mod(\"foo\") = \"\""),
            ("lease(\"foo\") = \"zz\"\n", "3 invalid txn compare request: lease(\"foo\") = \"zz\""),
            ("\nfoo bar\n", "3 invalid txn request: foo bar"),
            ("\nmember list\n", "3 invalid txn request: member list"),
            ("\nput a b --bogus\n", "3 invalid txn request: put a b --bogus"),
            ("\nput a \"b\n", "3 invalid txn request: put a \"b"),
            ("\nput a 'b\n", "3 invalid txn request: put a 'b"),
            ("\nget\n", "3 invalid txn compare request: get"),
            ("\nput foo\n", "128 put command needs 1 argument and input from stdin or 2 arguments"),
            ("\nget a --order=foo\n", "4 bad sort order foo"),
        ] {
            assert_eq!(words(input), Err(complaint.into()), "{input}");
        }
    }
}
