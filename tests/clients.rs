//! The tools that people have already: redis-cli, redis-benchmark, nc, redis-py, and scripts written for etcd.
//! What is not installed is skipped with a line that says so; CI installs them.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::harness::{self, Cluster, Member, PATIENCE, Setup, has, home, run, run_with, shown, skip, until};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a program that must succeed and complain of nothing.
fn output_of(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    assert!(output.status.success(), "{program} {args:?}: {}", shown(&output));
    text(&output.stdout)
}

#[test]
fn redis_cli() {
    if !has("redis-cli") {
        return skip("redis-cli", "it is not installed");
    }
    let cluster = Cluster::start(&Setup::default());
    let port = cluster.members[1].client_port.to_string();
    let cli = |words: &[&str]| output_of("redis-cli", &[&["-p", &port], words].concat());
    let first: u64 = cli(&["PUT", "foo", "bar"]).trim().parse().expect("a revision");
    assert_eq!(cli(&["GET", "foo"]), "bar\n");
    assert_eq!(cli(&["SET", "foo2", "two words"]), "OK\n");
    assert_eq!(cli(&["get", "foo2"]), "two words\n");
    assert_eq!(cli(&["GET", "nothing"]), "\n");
    let range = cli(&["RANGE", "foo", "PREFIX"]);
    for part in ["revision", "count", "foo", "bar", "foo2", "two words"] {
        assert!(range.lines().any(|line| line == part), "{part} is missing in\n{range}");
    }
    assert_eq!(cli(&["GET", "foo", "REV", &first.to_string()]), "bar\n");
    assert_eq!(cli(&["EXISTS", "foo", "foo2", "foo3"]), "2\n");
    assert_eq!(cli(&["DEL", "foo"]), "1\n");
    assert_eq!(cli(&["DEL", "foo"]), "0\n");
    assert_eq!(cli(&["DEL", "", "PREFIX"]), "1\n");
    assert_eq!(cli(&["DBSIZE"]), "0\n");
    // RESP3 from the beginning.
    assert_eq!(cli(&["-3", "PUT", "three", "3"]).trim(), (first + 4).to_string());
    assert_eq!(cli(&["-3", "GET", "three"]), "3\n");
    let info = cli(&["INFO"]);
    assert!(info.contains(':'), "{info}");
}

/// As a person uses it: on a terminal, where it asks for the documentation of all commands first.
#[test]
fn redis_cli_on_a_terminal() {
    if !has("redis-cli") || !has("script") {
        return skip("redis-cli on a terminal", "redis-cli or script is not installed");
    }
    let cluster = Cluster::start(&Setup::single());
    for protocol in ["", "-3"] {
        // redis-cli throws away what was typed before its prompt, so the typist has to pause.
        let typist = "sleep 0.7; for line in 'PUT typed value' 'GET typed' 'HELP PUT' 'DEL typed' quit; do \
                      printf '%s\\r' \"$line\"; sleep 0.3; done";
        let line = format!(
            "({typist}) | script -qec 'redis-cli {protocol} -p {}' /dev/null",
            cluster.members[0].client_port
        );
        let output = run_with(Command::new("sh").args(["-c", &line]).env("TERM", "dumb"), b"", PATIENCE);
        let said = text(&output.stdout);
        assert!(output.status.success(), "{}", shown(&output));
        assert!(said.contains("\"value\""), "{said}");
        assert!(said.contains("(integer) 1"), "{said}");
        for word in ["ERR", "rror", "Could not"] {
            assert!(!said.contains(word), "{word:?} in\n{said}");
        }
    }
}

fn benchmark(member: &Member, args: &str) {
    let port = member.client_port.to_string();
    let words: Vec<&str> = ["-p", &port, "-q"].into_iter().chain(args.split(' ')).collect();
    let mut command = Command::new("redis-benchmark");
    let output = run_with(command.args(&words), b"", Duration::from_secs(60));
    let said = shown(&output);
    assert!(output.status.success(), "redis-benchmark {args}: {said}");
    assert!(said.contains("requests per second"), "redis-benchmark {args}: {said}");
    assert!(!said.to_lowercase().contains("error"), "redis-benchmark {args}: {said}");
    assert!(!said.contains("WARNING"), "redis-benchmark {args}: {said}");
}

#[test]
fn redis_benchmark() {
    if !has("redis-benchmark") {
        return skip("redis-benchmark", "it is not installed");
    }
    for setup in [Setup::single(), Setup::default()] {
        let mut cluster = Cluster::start(&setup);
        let via = (cluster.leader() + 1) % cluster.members.len();
        let member = &cluster.members[via];
        benchmark(member, "-t set,get -n 2000 -c 50");
        benchmark(member, "-n 200 -c 1 PUT key:__rand_int__ value");
        for args in ["-c 1", "-c 50", "-c 1000", "-c 50 -P 16", "-c 1 -P 16"] {
            benchmark(member, &format!("-n 2000 -r 100000 {args} PUT key:__rand_int__ value"));
            benchmark(member, &format!("-n 2000 -r 100000 {args} GET key:__rand_int__"));
        }
        cluster.settle();
        cluster.stop_all();
        cluster.check_stopped();
    }
}

#[test]
fn netcat() {
    if !has("nc") {
        return skip("nc", "it is not installed");
    }
    let cluster = Cluster::start(&Setup::single());
    let port = cluster.members[0].client_port.to_string();
    let typed =
        "put greeting \"hello \\x21 there\"\r\nget greeting\nSTATUS nonsense\r\n\r\nDEL greeting\r\nQUIT\r\n";
    let output = run_with(Command::new("nc").args(["127.0.0.1", &port]), typed.as_bytes(), PATIENCE);
    let said = text(&output.stdout);
    let mut lines = said.split("\r\n");
    assert!(lines.next().is_some_and(|line| line.starts_with(':')), "{said}");
    assert_eq!(lines.next(), Some("$13"), "{said}");
    assert_eq!(lines.next(), Some("hello ! there"), "{said}");
    assert!(lines.next().is_some_and(|line| line.starts_with("-ERR ")), "{said}");
    assert_eq!(lines.collect::<Vec<_>>(), [":1", "+OK", ""], "{said}");
}

/// The conversation is in `tests/python/redis_py.py`.
#[test]
fn redis_py() {
    let installed = has("python3")
        && run_with(Command::new("python3").args(["-c", "import redis"]), b"", PATIENCE).status.success();
    if !installed {
        return skip("redis-py", "python3 with the redis package is not installed");
    }
    let cluster = Cluster::start(&Setup::default());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/redis_py.py");
    for member in &cluster.members[..2] {
        let mut command = Command::new("python3");
        command.arg(&script).arg(member.client_port.to_string());
        let output = run_with(&mut command, b"", Duration::from_secs(60));
        assert!(output.status.success(), "{}\n{}", shown(&output), member.log_tail(20));
    }
}

/// The everyday commands of an etcd user, behind links with etcd's names.
#[test]
fn scripts_written_for_etcd() {
    let home = home();
    for name in ["etcd", "etcdctl", "etcdutl"] {
        std::os::unix::fs::symlink(harness::PAWLD, home.path().join(name)).unwrap();
    }
    let called = |name: &str, args: &[&str]| -> Output {
        let program = home.path().join(name);
        run(program.to_str().expect("a plain path"), args)
    };
    let printed = |name: &str, args: &[&str]| -> String {
        let output = called(name, args);
        assert!(output.status.success(), "{name} {args:?}: {}", shown(&output));
        text(&output.stdout)
    };
    assert!(printed("etcd", &["--version"]).starts_with("etcd Version: "));
    assert!(printed("etcdctl", &["version"]).starts_with("etcdctl version: "));
    assert!(printed("etcdutl", &["version"]).starts_with("etcdutl version: "));

    for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
        let (client, peer) = (harness::free_port(), harness::free_port());
        let name = format!("s1-{}", host.replace('.', "-"));
        let data_dir = home.path().join(&name);
        let flags = [
            ("--name", name.clone()),
            ("--data-dir", data_dir.display().to_string()),
            ("--listen-client-urls", format!("http://{host}:{client}")),
            ("--advertise-client-urls", format!("http://{host}:{client}")),
            ("--listen-peer-urls", format!("http://{host}:{peer}")),
            ("--initial-advertise-peer-urls", format!("http://{host}:{peer}")),
            ("--initial-cluster", format!("{name}=http://{host}:{peer}")),
            ("--initial-cluster-token", "tkn".into()),
            ("--initial-cluster-state", "new".into()),
        ];
        let words: Vec<String> = flags.into_iter().flat_map(|(flag, value)| [flag.into(), value]).collect();
        let log = std::fs::File::create(home.path().join(format!("{name}.log"))).unwrap();
        let server = Command::new(home.path().join("etcd"))
            .args(&words)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Killed(server);
        let endpoint = format!("--endpoints=localhost:{client}");
        let ctl = |words: &[&str]| printed("etcdctl", &[&[endpoint.as_str()], words].concat());
        until("etcd to take a put", PATIENCE, || {
            let output = called("etcdctl", &[&endpoint, "put", "foo", "bar"]);
            output.status.success().then(|| assert_eq!(text(&output.stdout), "OK\n"))
        });
        assert_eq!(ctl(&["get", "foo"]), "foo\nbar\n");
        assert_eq!(ctl(&["put", "foo2", "bar2"]), "OK\n");
        assert_eq!(ctl(&["get", "", "--prefix=true"]), "foo\nbar\nfoo2\nbar2\n");
        assert_eq!(ctl(&["get", "foo", "--print-value-only"]), "bar\n");
        assert_eq!(ctl(&["del", "foo"]), "1\n");
        assert_eq!(ctl(&["get", "foo"]), "");
        assert_eq!(ctl(&["del", "foo2"]), "1\n");
        assert_eq!(ctl(&["get", "", "--prefix=true"]), "");
        let failed = called("etcdctl", &["--endpoints=localhost:1", "--dial-timeout=1s", "get", "foo"]);
        assert!(!failed.status.success(), "there is nobody at port 1: {}", shown(&failed));
        server.0.kill().unwrap();
        assert!(data_dir.join("member").is_dir(), "the data is where etcd has it");
    }
}

/// A child that does not outlive the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
