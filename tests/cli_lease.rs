//! `pawlctl lease`, against what etcdctl 3.5.1 was recorded to print: formats, complaints, exit codes.

use crate::cli::{ask, bulk, golden, with_header};

const ID: &str = "390da221a6a23805";

fn ttl(id: i64, ttl_s: i64, granted_s: u64, keys: &[&str]) -> String {
    let (count, keys): (_, String) = (keys.len(), keys.iter().map(bulk).collect());
    with_header(
        3,
        &format!(
            "*8\r\n+id\r\n:{id}\r\n+ttl\r\n:{ttl_s}\r\n+granted_ttl\r\n:{granted_s}\r\n+keys\r\n*{count}\r\n{keys}"
        ),
    )
}

#[test]
fn output_of_lease_commands_is_etcdctls() {
    let id = i64::from_str_radix(ID, 16).unwrap();
    let line = |words: &str| words.replace("ID", ID);
    let cases = [
        (
            line("lease grant 100"),
            "LEASE GRANT 100".into(),
            with_header(3, &format!("*2\r\n:{id}\r\n:100\r\n")),
        ),
        (line("lease revoke ID"), format!("LEASE REVOKE {id}"), with_header(3, "+OK\r\n")),
        (line("lease timetolive ID"), format!("LEASE TTL {id}"), ttl(id, 97, 100, &[])),
        (line("lease timetolive ID --keys"), format!("LEASE TTL {id} KEYS"), ttl(id, 97, 100, &["a", "aa"])),
        (line("lease timetolive 77"), "LEASE TTL 119".into(), ttl(119, -1, 0, &[])),
        (
            line("lease list"),
            "LEASE LIST".into(),
            with_header(3, &format!("*2\r\n:4111120300272400397\r\n:{id}\r\n")),
        ),
        (line("lease list --hex"), "LEASE LIST".into(), with_header(3, "*0\r\n")),
        (
            line("lease keep-alive ID --once"),
            format!("LEASE KEEPALIVE {id}"),
            with_header(3, "*1\r\n:100\r\n"),
        ),
    ];
    for (line, request, reply) in cases {
        for format in ["simple", "json", "fields"] {
            let line = format!("{line} -w {format}");
            let words: Vec<&str> = line.split(' ').collect();
            let (exit, out, err, asked) = ask(&words, reply.clone());
            assert_eq!((exit, err.as_str(), asked.as_str()), (0, "", request.as_str()), "{line}");
            assert_eq!(out, golden(&line), "{line}");
        }
        let words: Vec<&str> = line.split(' ').chain(["-w", "table"]).collect();
        let (exit, out, err, _) = ask(&words, reply);
        let refused = (4, "Error: table not supported as output format\n");
        assert_eq!((out.as_str(), (exit, err.as_str())), ("", refused), "{line}");
    }
}

/// A lease that is gone ends `keep-alive` in peace, and `keep-alive --once` not.
#[test]
fn a_lease_that_is_gone() {
    let gone = || with_header(3, "*1\r\n:0\r\n");
    let (exit, out, err, _) = ask(&["lease", "keep-alive", "77"], gone());
    assert_eq!((exit, out.as_str(), err.as_str()), (0, "lease 0000000000000077 expired or revoked.\n", ""));
    let (exit, out, err, _) = ask(&["lease", "keep-alive", "77", "--once"], gone());
    let refused = "Error: etcdserver: requested lease not found\n";
    assert_eq!((exit, out.as_str(), err.as_str()), (2, "", refused));
}

#[test]
fn refusals_of_lease_commands_are_etcdctls() {
    const NONE: &str = "-NOLEASE etcdserver: requested lease not found\r\n";
    for (words, reply, line) in [
        (
            "lease grant 9000000001",
            "-ERR etcdserver: too large lease TTL\r\n",
            "failed to grant lease (etcdserver: too large lease TTL)",
        ),
        ("lease revoke 77", NONE, "failed to revoke lease (etcdserver: requested lease not found)"),
        ("put c d --lease=77", NONE, "etcdserver: requested lease not found"),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let (exit, out, err, _) = ask(&words, reply.into());
        assert_eq!((exit, out, err), (1, String::new(), format!("Error: {line}\n")));
    }
    // What is shorter than none is sent, and the server makes it longer.
    for (word, sent) in [("-5", "-5"), ("0", "0"), ("-9223372036854775808", "-9223372036854775807")] {
        let (.., asked) = ask(&["lease", "grant", "--", word], with_header(3, "*2\r\n:7\r\n:2\r\n"));
        assert_eq!(asked, format!("LEASE GRANT {sent}"));
    }
}

/// Nobody is asked.
#[test]
fn command_lines_that_name_no_lease() {
    const HEX: &str = "expecting ID in Hex";
    let invalid = |word| format!("strconv.ParseInt: parsing {word:?}: invalid syntax");
    let long = "390da221a6a23805390da221a6a23805";
    for (line, complaint) in [
        ("lease grant", "lease grant command needs TTL argument".into()),
        ("lease grant 10 20", "lease grant command needs TTL argument".into()),
        ("lease grant abc", format!("bad TTL ({})", invalid("abc"))),
        (
            "lease grant 99999999999999999999",
            "bad TTL (strconv.ParseInt: parsing \"99999999999999999999\": value out of range)".into(),
        ),
        ("lease revoke", "lease revoke command needs 1 argument".into()),
        ("lease revoke 7 8", "lease revoke command needs 1 argument".into()),
        ("lease revoke zz", format!("bad lease ID arg ({}), {HEX}", invalid("zz"))),
        (
            "lease revoke LONG",
            format!("bad lease ID arg (strconv.ParseInt: parsing {long:?}: value out of range), {HEX}"),
        ),
        ("lease timetolive", "lease timetolive command needs lease ID as argument".into()),
        ("lease timetolive 7 8", "lease timetolive command needs lease ID as argument".into()),
        ("lease keep-alive", "lease keep-alive command needs lease ID as argument".into()),
        ("lease keep-alive zz", format!("bad lease ID arg ({}), {HEX}", invalid("zz"))),
    ] {
        let line = line.replace("LONG", long);
        let words: Vec<&str> = line.split(' ').collect();
        let (exit, out, err) = crate::cli::run(&mut crate::cli::pawlctl(&words));
        assert_eq!((exit, out, err), (128, String::new(), format!("Error: {complaint}\n")), "{line}");
    }
}
