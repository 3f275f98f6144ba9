//! What a connection says about itself, and what the server says about its commands: all that is answered
//! without the node.

use bytes::Bytes;

use super::command::{self, Call};
use super::frame::Words;
use super::resp::{Dialect, Resp};
use super::table::{self, Argument, COMMANDS, Kind, Spec};
use super::{ConnId, ServerInfo};
use crate::api::{Code, Fault};

/// What a client may call itself.
const NAME_BYTES_MAX: usize = 256;

/// What `CONFIG GET` compares the names of flags with.
const PATTERNS_MAX: usize = 16;
const PATTERN_BYTES_MAX: usize = 128;

/// What HELLO, HEADER and CLIENT SETNAME have set.
#[derive(Clone, Debug, Default)]
pub struct Session {
    pub dialect: Dialect,
    /// Replies come with a header.
    pub header: bool,
    pub name: Option<Bytes>,
}

impl Session {
    pub fn set_name(&mut self, name: &[u8]) -> Result<(), Fault> {
        if name.len() > NAME_BYTES_MAX || !name.iter().all(u8::is_ascii_graphic) {
            return Err(Fault::new(
                Code::Err,
                format!("a client's name has {NAME_BYTES_MAX} bytes at most, all printable and none a blank"),
            ));
        }
        // Copied: a name that shared the buffer it arrived in would keep all of it for the connection's life.
        self.name = (!name.is_empty()).then(|| Bytes::copy_from_slice(name));
        Ok(())
    }

    /// `HELLO [2|3 [AUTH user password] [SETNAME name]]`: all of it or nothing.
    pub fn hello(&mut self, call: Call<'_>) -> Result<(), Fault> {
        let words = call.words;
        if call.count() == 0 {
            return Ok(());
        }
        let dialect = match words.get(call.first) {
            b"2" => Dialect::Resp2,
            b"3" => Dialect::Resp3,
            _ => return Err(call.fault("the protocol is 2 or 3")),
        };
        let mut name = None;
        let mut next = call.first + 1;
        while next < words.count() {
            if words.is(next, "AUTH") {
                let (_, why) = table::absent(b"AUTH").expect("AUTH is in the table");
                return Err(Fault::new(Code::Err, why));
            }
            if !words.is(next, "SETNAME") || next + 1 == words.count() {
                return Err(call.fault("wrong words behind the protocol"));
            }
            name = Some(words.get(next + 1));
            next += 2;
        }
        if let Some(name) = name {
            self.set_name(name)?;
        }
        self.dialect = dialect;
        Ok(())
    }
}

/// The map that HELLO answers. The names are those that Redis's libraries look for; `mode` must not be
/// `cluster`, on which they would ask for slots.
pub fn write_hello(info: &ServerInfo, conn: ConnId, dialect: Dialect, resp: &mut Resp<'_>) {
    resp.map(7);
    resp.text("server");
    resp.text("pawl");
    resp.text("version");
    resp.text(info.version);
    resp.text("proto");
    resp.integer(if dialect == Dialect::Resp3 { 3 } else { 2 });
    resp.text("id");
    resp.integer(conn);
    resp.text("mode");
    resp.text("standalone");
    resp.text("role");
    resp.text("master");
    resp.text("modules");
    resp.array(0);
}

/// `CONFIG GET pattern*`: our flags, and the two settings of Redis that `redis-benchmark` asks for.
pub fn config_matches<'a>(info: &'a ServerInfo, call: Call<'_>) -> Result<Vec<(&'a str, &'a str)>, Fault> {
    let patterns: Vec<&[u8]> = (call.first..call.words.count()).map(|word| call.words.get(word)).collect();
    if patterns.len() > PATTERNS_MAX || patterns.iter().any(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
        return Err(Fault::new(
            Code::Err,
            format!("CONFIG GET takes {PATTERNS_MAX} patterns of {PATTERN_BYTES_MAX} bytes at most"),
        ));
    }
    let redis = [("appendonly", "yes"), ("save", "")];
    let ours = info.config.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let wanted = |name: &str| patterns.iter().any(|pattern| glob(pattern, name.as_bytes()));
    Ok(redis.into_iter().chain(ours).filter(|(name, _)| wanted(name)).collect())
}

/// `*` is any bytes, `?` one byte, in any case of letters. On a mismatch only the last star is tried again, one
/// byte further: no pattern costs more than its length times the name's.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte.eq_ignore_ascii_case(&name[n]) => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((behind, at)) => {
                    star = Some((behind, at + 1));
                    (p, n) = (behind, at + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// `COMMAND` and `COMMAND INFO`: `[name, arity, flags, first key, last key, step, categories, tips, key
/// specifications, subcommands]` for each.
pub fn write_commands(words: &Words, first: usize, resp: &mut Resp<'_>) {
    if first >= words.count() {
        resp.array(COMMANDS.len());
        for spec in COMMANDS {
            write_command(spec, None, resp);
        }
        return;
    }
    resp.array(words.count() - first);
    for word in first..words.count() {
        match table::find(words.get(word)) {
            Some(spec) => write_command(spec, None, resp),
            None => resp.null(),
        }
    }
}

fn write_command(spec: &Spec, container: Option<&Spec>, resp: &mut Resp<'_>) {
    resp.array(10);
    resp.text(&full_name(spec, container));
    resp.signed(spec.arity(1 + usize::from(container.is_some())));
    resp.array(spec.flags.len());
    for flag in spec.flags {
        resp.simple(flag);
    }
    for position in [spec.keys.0, spec.keys.1, spec.keys.2] {
        resp.signed(position);
    }
    for _ in ["categories", "tips", "key specifications"] {
        resp.array(0);
    }
    resp.array(spec.subcommands.len());
    // One level: the table has no deeper one.
    for sub in spec.subcommands {
        write_command(sub, Some(spec), resp);
    }
}

/// Lower case, subcommands as `config|get`: how Redis names them.
fn full_name(spec: &Spec, container: Option<&Spec>) -> String {
    match container {
        Some(container) => format!("{}|{}", container.name, spec.name).to_ascii_lowercase(),
        None => spec.name.to_ascii_lowercase(),
    }
}

pub fn write_names(resp: &mut Resp<'_>) {
    resp.array(COMMANDS.len());
    for spec in COMMANDS {
        resp.text(&full_name(spec, None));
    }
}

/// `COMMAND DOCS`: a map from names to what `redis-cli` shows of them. Names that are not known are left out.
pub fn write_docs(words: &Words, first: usize, resp: &mut Resp<'_>) {
    let specs: Vec<&Spec> = if first >= words.count() {
        COMMANDS.iter().collect()
    } else {
        (first..words.count()).filter_map(|word| table::find(words.get(word))).collect()
    };
    resp.map(specs.len());
    for spec in specs {
        write_doc(spec, None, resp);
    }
}

fn write_doc(spec: &Spec, container: Option<&Spec>, resp: &mut Resp<'_>) {
    resp.text(&full_name(spec, container));
    let extras = usize::from(!spec.arguments.is_empty()) + usize::from(!spec.subcommands.is_empty());
    resp.map(3 + extras);
    resp.text("summary");
    resp.text(spec.summary);
    resp.text("since");
    resp.text("0.1.0");
    resp.text("group");
    resp.text(spec.group.name());
    if !spec.arguments.is_empty() {
        resp.text("arguments");
        let spans = spec.arguments.iter().filter(|argument| matches!(argument, Argument::Span)).count();
        resp.array(spec.arguments.len() + spans);
        for argument in spec.arguments {
            write_argument(argument, resp);
        }
    }
    if !spec.subcommands.is_empty() {
        resp.text("subcommands");
        resp.map(spec.subcommands.len());
        for sub in spec.subcommands {
            write_doc(sub, Some(spec), resp);
        }
    }
}

const OPTIONAL: &[&str] = &["optional"];
const MULTIPLE: &[&str] = &["multiple"];
const OPTIONAL_MULTIPLE: &[&str] = &["optional", "multiple"];

fn write_argument(argument: &Argument, resp: &mut Resp<'_>) {
    match *argument {
        Argument::Word(name, kind) => describe(name, kind.name(), None, &[], 0, resp),
        Argument::Maybe(name, kind) => describe(name, kind.name(), None, OPTIONAL, 0, resp),
        Argument::Many(name, kind) => describe(name, kind.name(), None, MULTIPLE, 0, resp),
        Argument::Any(name, kind) => describe(name, kind.name(), None, OPTIONAL_MULTIPLE, 0, resp),
        Argument::Span => {
            describe("key", Kind::Key.name(), None, &[], 0, resp);
            describe("span", "oneof", None, OPTIONAL, 3, resp);
            describe("end", Kind::Text.name(), Some("TO"), &[], 0, resp);
            describe("prefix", "pure-token", Some("PREFIX"), &[], 0, resp);
            describe("from", "pure-token", Some("FROM"), &[], 0, resp);
        }
        Argument::OneOf(name, tokens) => {
            describe(name, "oneof", None, &[], tokens.len(), resp);
            write_tokens(tokens, resp);
        }
        Argument::Flag(_, token) => {
            describe(&token.to_ascii_lowercase(), "pure-token", Some(token), OPTIONAL, 0, resp);
        }
        Argument::Number(_, token, name) => {
            describe(name, Kind::Integer.name(), Some(token), OPTIONAL, 0, resp);
        }
        Argument::Either(_, tokens) => {
            describe(&tokens[0].to_ascii_lowercase(), "oneof", None, OPTIONAL, tokens.len(), resp);
            write_tokens(tokens, resp);
        }
        Argument::Choice(_, token, tokens) => {
            describe(&token.to_ascii_lowercase(), "oneof", Some(token), OPTIONAL, tokens.len(), resp);
            write_tokens(tokens, resp);
        }
        Argument::Section(token, name) => {
            describe(name, Kind::Text.name(), Some(token), OPTIONAL_MULTIPLE, 0, resp);
        }
        Argument::Token(token) => {
            describe(&token.to_ascii_lowercase(), "pure-token", Some(token), &[], 0, resp);
        }
        Argument::Texts(token, names) => {
            describe(&token.to_ascii_lowercase(), "block", Some(token), OPTIONAL, names.len(), resp);
            for name in names {
                describe(name, Kind::Text.name(), None, &[], 0, resp);
            }
        }
    }
}

fn write_tokens(tokens: &[&str], resp: &mut Resp<'_>) {
    for token in tokens {
        describe(&token.to_ascii_lowercase(), "pure-token", Some(token), &[], 0, resp);
    }
}

/// One argument's map. Names and values are bulk strings but flags are simple strings: `redis-cli` aborts on
/// anything else. `inner`: so many arguments follow, as the last value.
fn describe(name: &str, kind: &str, token: Option<&str>, flags: &[&str], inner: usize, resp: &mut Resp<'_>) {
    let pairs = 2 + usize::from(token.is_some()) + usize::from(!flags.is_empty()) + usize::from(inner > 0);
    resp.map(pairs);
    resp.text("name");
    resp.text(name);
    resp.text("type");
    resp.text(kind);
    if let Some(token) = token {
        resp.text("token");
        resp.text(token);
    }
    if !flags.is_empty() {
        resp.text("flags");
        resp.array(flags.len());
        for flag in flags {
            resp.simple(flag);
        }
    }
    if inner > 0 {
        resp.text("arguments");
        resp.array(inner);
    }
}

/// `SELECT 0` is what libraries send when a database is configured.
pub fn select(call: Call<'_>) -> Result<(), Fault> {
    match command::decimal(call.words.get(call.first)) {
        Some(0) => Ok(()),
        Some(_) => Err(Fault::new(Code::Err, "there is one database, number 0")),
        None => Err(call.fault("the number of a database is decimal")),
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("", "a", false),
            ("save", "save", true),
            ("SAVE", "save", true),
            ("sav", "save", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("*-*-*", "max-request-bytes", true),
            ("*-*-*-*", "max-request-bytes", false),
            ("?ame", "name", true),
            ("?", "", false),
            ("*ab*ab", "aababab", true),
            ("**", "x", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} on {name}");
        }
    }
}
