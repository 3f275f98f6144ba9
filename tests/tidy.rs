//! The tree held to its own rules: who may import whom, words that must not stay, goldens that nobody
//! reads, files that have grown too long. Every failure names the file, the line and the rule.

use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom, outside tests. `raft:types` means the values of `raft/types.rs` alone.
/// `ARCHITECTURE.md` shows this table, row for row; the test below compares them.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("io", &["base"]),
    ("api", &["base"]),
    ("raft", &["base"]),
    ("wal", &["base", "io", "raft:types"]),
    ("btree", &["base", "io"]),
    ("store", &["base", "io", "api", "btree"]),
    ("node", &["base", "api", "io", "raft", "wal", "store"]),
    ("proto", &["base", "api"]),
    ("proto::peer", &["base", "api", "raft:types"]),
    // Its log-writer thread runs the writing half of the log, as a value.
    ("net", &["base", "api", "io", "raft:types", "wal", "node", "proto"]),
    // Knows of a member what everybody may: files, and words on a socket.
    ("measure", &["base", "io"]),
    // Plays the event loop, so it holds the same parts, on simulated disks.
    ("sim", &["base", "io", "api", "raft", "wal", "btree", "store", "node", "proto"]),
    ("sim::history", &["base", "api"]),
    // Written from the specification: knows the vocabulary, and nothing of the store that it checks.
    ("sim::check", &["base", "api"]),
    (
        "cli",
        &["base", "io", "api", "raft", "wal", "btree", "store", "node", "proto", "net", "measure", "sim"],
    ),
];

/// Outside crates that only these places may name, and what is in them. `std` modules are written like crates.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("mio", &["net", "measure"]),
    ("socket2", &["net"]),
    ("rustix", &["io", "net", "cli"]),
    ("memmap2", &["io"]),
    ("httparse", &["proto"]),
    ("clap", &["cli"]),
    ("hdrhistogram", &["measure"]),
    ("indicatif", &["cli"]),
    ("clap_complete", &["cli"]),
    ("signal_hook", &["net", "cli"]),
    // What a call of etcd's API means does not know how it travels.
    ("h2", &["proto::grpc", "sim"]),
    ("http", &["proto::grpc", "sim"]),
    ("prost", &["proto::etcd", "proto::http::gateway", "sim"]),
    ("serde", &["proto::http::gateway"]),
    ("serde_json", &["proto::http::gateway", "cli::check", "cli::bench"]),
    ("tokio", &["proto::grpc", "sim"]),
];

/// Written in two pieces so that this file does not break its own rule.
const BANNED: &[(&str, &str)] = &[
    (concat!("to", "do!"), "finish it"),
    (concat!("unimple", "mented!"), "finish it"),
    (concat!("FIX", "ME"), "mend it, or write down what is left out and why"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/ho", "me/"), "a path of one machine"),
];

const FILE_LINES_MAX: usize = 900;

#[test]
fn modules_use_only_what_their_row_allows() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let module = module_of(&file);
        if module.is_empty() || is_test_file(&file) {
            continue;
        }
        let code = without_tests(&without_comments(&read(&file)));
        let row = row_of(&module);
        for (line, used) in paths_from_the_crate_root(&code) {
            if !allowed(row, &module, &used) {
                wrong.push(format!(
                    "{}:{line}: uses crate::{}; {} may use {:?}",
                    file.display(),
                    used.join("::"),
                    row.0,
                    row.1
                ));
            }
        }
        for (line, supers) in super_chains(&code) {
            if supers >= module.len() {
                wrong.push(format!(
                    "{}:{line}: climbs to the crate's root with super; write crate::",
                    file.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn outside_crates_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let module = module_of(&file);
        let code = without_tests(&without_comments(&read(&file)));
        for (name, places) in ONLY_IN {
            let named = format!("{name}::");
            for (number, line) in code.lines().enumerate() {
                if starts_word(line, &named) && !places.iter().any(|place| is_within(&module, place)) {
                    wrong.push(format!(
                        "{}:{}: names {name}; only {places:?} may",
                        file.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn is_within(module: &[String], place: &str) -> bool {
    let place: Vec<&str> = place.split("::").collect();
    module.len() >= place.len() && module.iter().zip(place).all(|(name, wanted)| name == wanted)
}

#[test]
fn the_architecture_page_shows_the_same_table() {
    let page = read(&top().join("ARCHITECTURE.md"));
    for (module, may_use) in MAY_USE {
        let cells: Vec<String> = may_use
            .iter()
            .map(|name| match name.strip_suffix(":types") {
                Some(module) => format!("{module}'s types"),
                None => (*name).to_string(),
            })
            .collect();
        let cells = if cells.is_empty() { "nothing".to_string() } else { cells.join(", ") };
        let row = format!("| `{module}` | {cells} |");
        assert!(page.contains(&row), "ARCHITECTURE.md lacks this row of the import table:\n{row}");
    }
}

#[test]
fn no_banned_word_is_left() {
    let mut files = rust_files("src");
    for dir in ["tests", "fuzz", "bench", "scripts", "docs", ".ci"] {
        files.extend(files_under(&top().join(dir)));
    }
    files.extend(top_level_texts());
    let mut wrong = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for (word, advice) in BANNED {
                if line.contains(word) {
                    wrong.push(format!("{}:{}: `{word}`: {advice}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// A golden is read when some test names it, or names its directory as `golden/<dir>` and walks it.
#[test]
fn every_golden_file_is_read_by_a_test() {
    let mut readers = String::new();
    for dir in ["src", "tests"] {
        for file in rust_files(dir) {
            readers.push_str(&read(&file));
        }
    }
    let mut orphans = Vec::new();
    for file in files_under(&top().join("tests/golden")) {
        let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let dir = file.parent().and_then(Path::file_name).expect("it is in a directory").to_string_lossy();
        if !readers.contains(&name) && !readers.contains(&format!("golden/{dir}")) {
            orphans.push(file.display().to_string());
        }
    }
    assert!(orphans.is_empty(), "goldens that no test names:\n{}\n", orphans.join("\n"));
}

#[test]
fn files_answer_one_question() {
    let mut wrong = Vec::new();
    for dir in ["src", "tests", "fuzz", "bench"] {
        for file in rust_files(dir) {
            let lines = read(&file).lines().count();
            if lines > FILE_LINES_MAX {
                wrong.push(format!("{}: {lines} lines; split it below {FILE_LINES_MAX}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

// The rules' own machinery, tested at the end: a tidy test that cannot see is worse than none.

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a directory, sorted; build output left out. A missing directory has none.
fn files_under(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != "__pycache__" && name != "corpus" && name != "artifacts" {
                files.extend(files_under(&path));
            }
        } else {
            files.push(path);
        }
    }
    files
}

fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut files = files_under(&top().join(dir));
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files
}

fn top_level_texts() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(top())
        .expect("the top directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|file| {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        name.ends_with(".md") || name.ends_with(".toml") || name == "Makefile"
    });
    files.sort();
    files
}

/// `src/proto/line.rs` is `[proto, line]`, `src/proto/mod.rs` is `[proto]`, `src/lib.rs` is `[]`.
fn module_of(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(top().join("src")).expect("a file of src");
    let mut parts: Vec<String> =
        inside.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let last = parts.pop().expect("a file name");
    match last.as_str() {
        "mod.rs" => {}
        "lib.rs" | "main.rs" if parts.is_empty() => {}
        name => parts.push(name.trim_end_matches(".rs").to_string()),
    }
    parts
}

fn row_of(module: &[String]) -> (&'static str, &'static [&'static str]) {
    let joined = module.join("::");
    let fits = |name: &str| joined == name || joined.starts_with(&format!("{name}::"));
    let best = MAY_USE.iter().filter(|(name, _)| fits(name)).max_by_key(|(name, _)| name.len());
    *best.unwrap_or_else(|| panic!("{joined} has no row in the import table of tests/tidy.rs"))
}

/// `tests/RULES.md` names tests that are there.
#[test]
fn every_rule_is_shown_by_a_test_that_is_there() {
    let rules = read(&top().join("tests/RULES.md"));
    let mut wrong = Vec::new();
    for (line, row) in (1..).zip(rules.lines()) {
        let is_rule = row.starts_with("| ") && !row.starts_with("| rule") && !row.starts_with("| here");
        let named: Vec<&str> = row.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
        if is_rule && named.is_empty() && !row.contains("has no `fragment`") {
            wrong.push(format!("tests/RULES.md:{line}: no test shows it"));
        }
        for name in named.into_iter().filter(|name| !is_test(name)) {
            wrong.push(format!("tests/RULES.md:{line}: there is no test {name}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Whether a test is called so, as `module::test` in `tests` or in `src`.
fn is_test(name: &str) -> bool {
    let mut path: Vec<&str> = name.split("::").collect();
    let function = path.pop().expect("a split has a part");
    // A module of tests at the end of a file, or in a file of its own.
    let outer = path.strip_suffix(&["tests"]).unwrap_or(&path);
    let files = [&path[..], outer].into_iter().flat_map(|path| {
        let path = path.join("/");
        ["src", "tests"].into_iter().flat_map(move |dir| {
            let at = top().join(dir).join(&path);
            [at.with_extension("rs"), at.join("mod.rs")]
        })
    });
    let texts = files.filter(|file| file.is_file()).map(|file| read(&file));
    texts.into_iter().any(|text| {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let is_its = |line: &str| line.starts_with(&format!("fn {function}("));
        let places = lines.iter().enumerate().filter(|(_, line)| is_its(line));
        places.into_iter().any(|(at, _)| lines[at.saturating_sub(3)..at].contains(&"#[test]"))
    })
}

fn allowed(row: (&str, &[&str]), module: &[String], used: &[String]) -> bool {
    let Some(first) = used.first() else { return true };
    // Macros exported by the crate's root, and the module itself.
    if *first == module[0] {
        return true;
    }
    if row.1.contains(&first.as_str()) {
        return true;
    }
    row.1.contains(&format!("{first}:types").as_str())
        && used.get(1).is_some_and(|name| name == "types" || raft_type_names().contains(name))
}

fn raft_type_names() -> Vec<String> {
    let text = read(&top().join("src/raft/types.rs"));
    let words = ["pub struct ", "pub enum ", "pub trait ", "pub type "];
    text.lines()
        .filter_map(|line| words.iter().find_map(|word| line.strip_prefix(word)))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

/// Whether some sibling declares this file as `#[cfg(test)] mod name;`.
fn is_test_file(file: &Path) -> bool {
    let stem = file.file_stem().expect("a name").to_string_lossy().into_owned();
    let dir = file.parent().expect("a directory");
    let parent = if dir.join("mod.rs").exists() { dir.join("mod.rs") } else { dir.with_extension("rs") };
    let Ok(text) = fs::read_to_string(parent) else { return false };
    let squeezed: String = without_comments(&text).split_whitespace().collect::<Vec<_>>().join(" ");
    ["", "pub ", "pub(crate) ", "pub(super) "]
        .iter()
        .any(|visibility| squeezed.contains(&format!("#[cfg(test)] {visibility}mod {stem};")))
}

/// The text with comments, strings and character literals blanked out, line for line.
fn without_comments(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let skipped = if rest.starts_with(b"//") {
            rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            find(rest, b"*/", 2).map_or(rest.len(), |end| end + 2)
        } else if rest[0] == b'"' {
            string_length(rest)
        } else if rest[0] == b'r' && !out.last().is_some_and(|b: &u8| b.is_ascii_alphanumeric() || *b == b'_')
        {
            raw_string_length(rest)
        } else if rest[0] == b'\'' {
            char_length(rest)
        } else {
            0
        };
        if skipped == 0 {
            out.push(rest[0]);
            at += 1;
        } else {
            out.extend(rest[..skipped].iter().map(|&b| if b == b'\n' { b'\n' } else { b' ' }));
            at += skipped;
        }
    }
    String::from_utf8(out).expect("blanks are ASCII, and the rest was cut at ASCII bytes")
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find(|&at| bytes[at..].starts_with(what))
}

fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string_length(bytes: &[u8]) -> usize {
    let hashes = bytes[1..].iter().take_while(|&&b| b == b'#').count();
    if bytes.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end = [&b"\""[..], &b"#".repeat(hashes)].concat();
    find(bytes, &end, 2 + hashes).map_or(bytes.len(), |at| at + end.len())
}

/// A character literal, or 0 for a lifetime.
fn char_length(bytes: &[u8]) -> usize {
    if bytes.get(1) == Some(&b'\\') {
        return find(bytes, b"'", 3).map_or(0, |at| at + 1);
    }
    let text = std::str::from_utf8(&bytes[1..bytes.len().min(6)])
        .or_else(|error| std::str::from_utf8(&bytes[1..1 + error.valid_up_to()]))
        .expect("the valid part is valid");
    let Some(c) = text.chars().next() else { return 0 };
    if text[c.len_utf8()..].starts_with('\'') { c.len_utf8() + 2 } else { 0 }
}

/// The (already comment-free) text with every item under `#[cfg(test)]` blanked out.
fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(start) = find(&bytes, b"#[cfg(test)]", from) {
        let mut depth = 0;
        let mut end = start + b"#[cfg(test)]".len();
        while end < bytes.len() {
            match bytes[end] {
                b'{' => depth += 1,
                b'}' if depth == 1 => break,
                b'}' => depth -= 1,
                b';' if depth == 0 => break,
                _ => {}
            }
            end += 1;
        }
        let end = (end + 1).min(bytes.len());
        for byte in &mut bytes[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        from = end;
    }
    String::from_utf8(bytes).expect("whole characters were blanked")
}

/// Every path that begins with `crate::`, groups in braces spread out, with its line.
fn paths_from_the_crate_root(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let mut rest = &code[at + "crate::".len()..];
        let mut found = Vec::new();
        use_tree(&mut rest, &[], &mut found);
        paths.extend(found.into_iter().map(|path| (line, path)));
    }
    paths
}

fn use_tree(rest: &mut &str, before: &[String], found: &mut Vec<Vec<String>>) {
    *rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        *rest = group;
        while !rest.trim_start().is_empty() && !rest.trim_start().starts_with('}') {
            use_tree(rest, before, found);
            let next = rest.find([',', '}']).unwrap_or(rest.len());
            *rest = rest[next..].trim_start_matches(',');
        }
        *rest = rest.trim_start().strip_prefix('}').unwrap_or("");
        return;
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    *rest = &rest[name.len()..];
    let mut path = before.to_vec();
    path.push(name);
    match rest.strip_prefix("::") {
        Some(deeper) if deeper.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '{') => {
            *rest = deeper;
            use_tree(rest, &path, found);
        }
        _ => found.push(path),
    }
}

/// How many `super::` follow each other, with the line.
fn super_chains(code: &str) -> Vec<(usize, usize)> {
    let mut chains = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find("super::").map(|at| at + from) {
        let count = (1..).take_while(|n| code[at..].starts_with(&"super::".repeat(*n))).count();
        chains.push((code[..at].matches('\n').count() + 1, count));
        from = at + count * "super::".len();
    }
    chains
}

fn starts_word(line: &str, what: &str) -> bool {
    line.match_indices(what)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

#[test]
fn the_machinery_sees() {
    let code = without_comments(
        "use crate::{api::{Put, Range}, base}; // crate::net\nlet x = \"crate::net\"; let c = '\"'; crate::io::os::f::<'a>();\nlet r = r#\"crate::cli \"#;",
    );
    let paths: Vec<String> = paths_from_the_crate_root(&code)
        .into_iter()
        .map(|(line, path)| format!("{line} {}", path.join("/")))
        .collect();
    assert_eq!(paths, ["1 api/Put", "1 api/Range", "1 base", "2 io/os/f"]);

    let module = ["wal".to_string(), "format".to_string()];
    let uses = |path: &str| {
        let path: Vec<String> = path.split("::").map(str::to_string).collect();
        allowed(row_of(&module), &module, &path)
    };
    assert!(uses("raft::Entry") && uses("raft::types::LogGap") && uses("base::crc") && uses("wal::x"));
    assert!(!uses("raft::Raft") && !uses("raft") && !uses("store::Store") && !uses("api::Put"));

    let cut = without_tests("fn a() {}\n#[cfg(test)]\nmod tests { fn b() { crate::net } }\nfn c() {}");
    assert!(!cut.contains("net") && cut.contains("fn c()") && cut.matches('\n').count() == 3);
    assert_eq!(super_chains("use super::super::x;\nsuper::y"), [(1, 2), (2, 1)]);
}
