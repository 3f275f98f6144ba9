//! The scripts of `pawlctl completion`, asked by the shells themselves.

#![allow(clippy::disallowed_methods, reason = "a shell reads its script from a real disk")]

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::cli::{pawlctl, run};
use crate::harness::{self, PAWLD, has, skip};

/// The script for a shell, from the binary under a name.
fn script(name: &str, shell: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let link = dir.path().join(name);
    symlink(PAWLD, &link).expect("a link");
    let (exit, out, err) = run(Command::new(link).args(["completion", shell]).env_clear());
    assert_eq!((exit, err.as_str()), (0, ""), "{name} {shell}");
    out
}

/// What bash offers for a line whose last word has only begun.
fn completed(script: &str, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let (name, last, before) = (words[0], words[words.len() - 1], words[words.len() - 2]);
    let ask = format!(
        "{script}\nfunction=$(complete -p {name} | sed 's/.* -F \\([^ ]*\\) .*/\\1/')\n\
         COMP_WORDS=({line}); COMP_CWORD={}; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}\n\
         $function {name} {last} {before}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.len() - 1
    );
    // It is too long for a command line.
    let mut bash = Command::new("bash");
    let output =
        harness::run_with(bash.args(["--noprofile", "--norc", "-s"]), ask.as_bytes(), harness::PATIENCE);
    assert!(output.stderr.is_empty(), "{line}: {}", harness::shown(&output));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes() {
    if !has("bash") {
        return skip("completion in bash", "no bash is installed");
    }
    for name in ["pawlctl", "etcdctl"] {
        let script = script(name, "bash");
        for (line, wanted) in [
            ("mem", &["member"][..]),
            ("make", &["make-mirror"]),
            ("get --pref", &["--prefix"]),
            ("get --endp", &["--endpoints"]),
            ("member ad", &["add"]),
            ("lease ti", &["timetolive"]),
            ("make-mirror --dest", &["--dest-prefix"]),
            ("member list --write", &["--write-out"]),
            // What is not available is not offered.
            ("get --cace", &[]),
        ] {
            let found = completed(&script, &format!("{name} {line}"));
            let found: Vec<&str> = found.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
            assert_eq!(found, wanted, "{name} {line}");
        }
    }
    let (_, by_subcommand, _) = run(&mut pawlctl(&["completion", "bash"]));
    assert_eq!(by_subcommand, script("pawlctl", "bash"), "`pawld ctl` completes pawlctl");
}

#[test]
fn zsh_and_fish_can_read_their_scripts() {
    for (shell, check) in [("zsh", &["-n"][..]), ("fish", &["--no-execute"])] {
        let script = script("pawlctl", shell);
        assert!(script.contains("make-mirror") && script.contains("endpoints"), "{shell}");
        if !has(shell) {
            skip(&format!("completion in {shell}"), &format!("no {shell} is installed"));
            continue;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("script");
        std::fs::write(&path, script).expect("a file");
        let words: Vec<&str> = check.iter().copied().chain(path.to_str()).collect();
        let output = harness::run(shell, &words);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", harness::shown(&output));
    }
}

#[test]
fn other_shells_are_refused() {
    for (words, found) in [(&[][..], ""), (&["tcsh"], "\"tcsh\""), (&["bash", "zsh"], "\"bash\" \"zsh\"")] {
        let (exit, out, err) = run(pawlctl(&["completion"]).args(words));
        let complaint = format!("Error: completion takes one of bash, fish and zsh, found [{found}]\n");
        assert_eq!((exit, out.as_str(), err), (128, "", complaint));
    }
}
