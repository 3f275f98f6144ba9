//! Command lines of the client that make no sense, each against a real member: one line that says why, and etcdctl's exit code. The
//! lines are etcdctl 3.5.1's own where it has such a command, but for what clap says of a flag's value, and for a command within a
//! group that does not exist (etcdctl prints its help then, and ends well).

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use crate::cli::{pawlctl, run};
use crate::harness::{Cluster, Setup};

/// Command line, exit code, complaint. `''` is an empty word. What is too large for 64 bits is BIG.
const TABLE: &str = r#"
put                                   | 128 | put command needs 1 argument and input from stdin or 2 arguments
put k v w                             | 128 | put command needs 1 argument and input from stdin or 2 arguments
put '' v                              | 1   | etcdserver: key is not provided
put k v --lease=xyz                   | 128 | bad lease ID (strconv.ParseInt: parsing "xyz": invalid syntax), expecting ID in Hex
put k v --lease=BIG                   | 128 | bad lease ID (strconv.ParseInt: parsing "BIG": value out of range), expecting ID in Hex
put k v --lease=-1                    | 1   | etcdserver: requested lease not found
put k v --lease=77                    | 1   | etcdserver: requested lease not found
put none --ignore-value               | 1   | etcdserver: key not found
put k v --ignore-value                | 128 | put command needs only 1 argument when 'ignore-value' is set
put k v --prev-kv=maybe               | 1   | invalid value 'maybe' for '--prev-kv[=<BOOL>]': expected true or false, found "maybe"
put k v --bogus                       | 1   | unknown flag: --bogus
get                                   | 128 | get command needs one argument as key and an optional argument as range_end
get ''                                | 1   | etcdserver: key is not provided
get k --rev=2                         | 1   | etcdserver: mvcc: required revision has been compacted
get k --rev=99                        | 1   | etcdserver: mvcc: required revision is a future revision
get k --rev=9223372036854775807       | 1   | etcdserver: mvcc: required revision is a future revision
get k --rev=BIG                       | 1   | invalid value 'BIG' for '--rev <REV>': number too large to fit in target type
get k --rev=x                         | 1   | invalid value 'x' for '--rev <REV>': invalid digit found in string
get k --limit=BIG                     | 1   | invalid value 'BIG' for '--limit <LIMIT>': number too large to fit in target type
get k --order=up                      | 4   | bad sort order up
get k --sort-by=size                  | 4   | bad sort target size
get k --consistency=x                 | 4   | unknown consistency flag "x"
get k --prefix --from-key             | 128 | `--prefix` and `--from-key` cannot be set at the same time, choose one
get k -w xml                          | 4   | unsupported output format
get k -w protobuf                     | 4   | protobuf not supported as output format
get k --command-timeout=5             | 1   | invalid value '5' for '--command-timeout <DURATION>': expected a duration such as 5s or 300ms, found "5"
get k --dial-timeout=-1s              | 1   | invalid value '-1s' for '--dial-timeout <DURATION>': expected a duration such as 5s or 300ms, found "-1s"
get k --endpoints=https://127.0.0.1:1 | 1   | endpoint https://127.0.0.1:1: TLS is not available yet: use http://
get k --endpoints=127.0.0.1:port      | 1   | endpoint http://127.0.0.1:port: expected a port from 0 to 65535, found "port"
get k --bogus                         | 1   | unknown flag: --bogus
del                                   | 128 | del command needs one argument as key and an optional argument as range_end
del ''                                | 1   | etcdserver: key is not provided
del a b c                             | 128 | del command needs one argument as key and an optional argument as range_end
del k --bogus                         | 1   | unknown flag: --bogus
txn x                                 | 128 | txn command does not accept argument
txn                                   | 3   | EOF
txn --bogus                           | 1   | unknown flag: --bogus
compaction                            | 128 | compaction command needs 1 argument
compaction 1 2                        | 128 | compaction command needs 1 argument
compaction x                          | 1   | strconv.ParseInt: parsing "x": invalid syntax
compaction BIG                        | 1   | strconv.ParseInt: parsing "BIG": value out of range
compaction -- -1                      | 1   | etcdserver: mvcc: required revision has been compacted
compaction 0                          | 1   | etcdserver: mvcc: required revision has been compacted
compaction 2                          | 1   | etcdserver: mvcc: required revision has been compacted
compaction 99                         | 1   | etcdserver: mvcc: required revision is a future revision
compaction 5 --bogus                  | 1   | unknown flag: --bogus
watch                                 | 128 | bad number of arguments
watch k z --prefix                    | 128 | `range_end` and `--prefix` are mutually exclusive
watch k --rev=BIG                     | 1   | invalid value 'BIG' for '--rev <REV>': number too large to fit in target type
watch k -w table                      | 4   | table not supported as output format
watch k --bogus                       | 1   | unknown flag: --bogus
lease bogus                           | 1   | unknown command "bogus" for "pawld ctl"
lease grant                           | 128 | lease grant command needs TTL argument
lease grant BIG                       | 128 | bad TTL (strconv.ParseInt: parsing "BIG": value out of range)
lease grant 9000000001                | 1   | failed to grant lease (etcdserver: too large lease TTL)
lease revoke                          | 128 | lease revoke command needs 1 argument
lease revoke zz                       | 128 | bad lease ID arg (strconv.ParseInt: parsing "zz": invalid syntax), expecting ID in Hex
lease revoke BIG                      | 128 | bad lease ID arg (strconv.ParseInt: parsing "BIG": value out of range), expecting ID in Hex
lease revoke 77                       | 1   | failed to revoke lease (etcdserver: requested lease not found)
lease revoke -- -7                    | 1   | etcdserver: requested lease not found
lease timetolive -- -7                | 1   | etcdserver: requested lease not found
lease timetolive zz                   | 128 | bad lease ID arg (strconv.ParseInt: parsing "zz": invalid syntax), expecting ID in Hex
lease keep-alive zz                   | 128 | bad lease ID arg (strconv.ParseInt: parsing "zz": invalid syntax), expecting ID in Hex
lease keep-alive 77 --once            | 2   | etcdserver: requested lease not found
lease list --bogus                    | 1   | unknown flag: --bogus
lock                                  | 128 | lock takes a lock name argument and an optional command to execute
lock l --ttl=-1                       | 1   | invalid value '-1' for '--ttl <SECONDS>': invalid digit found in string
lock l --ttl=9000000001               | 1   | invalid value '9000000001' for '--ttl <SECONDS>': 9000000001 is not in 0..=9000000000
lock l /no/such/program               | 1   | fork/exec /no/such/program: no such file or directory
lock l no-such-program                | 1   | exec: "no-such-program": executable file not found in $PATH
watch k --                            | 128 | bad number of arguments (found separator --, but no commands)
get k -x                              | 1   | unknown shorthand flag: 'x' in -x
get k --insecure-transport=false      | 4   | TLS is not available yet
elect                                 | 128 | elect takes one election name argument and an optional proposal argument
elect e                               | 128 | no proposal argument but -l not set
elect e p q                           | 128 | elect takes one election name argument and an optional proposal argument
elect -l e p                          | 128 | proposal given but -l is set
elect e p --ttl=x                     | 1   | invalid value 'x' for '--ttl <SECONDS>': invalid digit found in string
member add                            | 128 | member name not provided
member add m                          | 128 | member peer urls not provided
member add m n --peer-urls=http://h:1 | 128 | too many arguments
member add m --peer-urls=ftp://h:1    | 1   | peer URL ftp://h:1: unknown scheme "ftp": expected http://host:port
member add m --peer-urls=https://h:1  | 1   | peer URL https://h:1: TLS is not available yet: use http://
member add m --peer-urls=http://h:1 -w fields | 4 | fields not supported as output format
member remove                         | 128 | member ID is not provided
member remove 1 2                     | 128 | member ID is not provided
member remove zz                      | 128 | bad member ID arg (strconv.ParseUint: parsing "zz": invalid syntax), expecting ID in Hex
member remove BIG                     | 128 | bad member ID arg (strconv.ParseUint: parsing "BIG": value out of range), expecting ID in Hex
member remove 1234                    | 1   | etcdserver: member not found
member update 1234                    | 128 | member peer urls not provided
member update zz --peer-urls=http://h:1 | 128 | bad member ID arg (strconv.ParseUint: parsing "zz": invalid syntax), expecting ID in Hex
member update 1234 --peer-urls=http://h:1 | 1 | etcdserver: member not found
member promote                        | 128 | member ID is not provided
member promote 1234                   | 1   | etcdserver: member not found
member change                         | 128 | no change: --add, --add-learner, --remove or --promote
member change --remove=zz             | 128 | bad member ID arg (strconv.ParseUint: parsing "zz": invalid syntax), expecting ID in Hex
member list --bogus                   | 1   | unknown flag: --bogus
move-leader                           | 128 | move-leader command needs 1 argument
move-leader zz                        | 128 | strconv.ParseUint: parsing "zz": invalid syntax
move-leader BIG                       | 128 | strconv.ParseUint: parsing "BIG": value out of range
move-leader 1234                      | 1   | etcdserver: bad leader transferee
endpoint bogus                        | 1   | unknown command "bogus" for "pawld ctl"
endpoint hashkv --rev=x               | 1   | invalid value 'x' for '--rev <REV>': invalid digit found in string
endpoint status --bogus               | 1   | unknown flag: --bogus
alarm bogus                           | 1   | unknown command "bogus" for "pawld ctl"
alarm list x                          | 128 | alarm list command accepts no arguments
alarm disarm x                        | 128 | alarm disarm command accepts no arguments
alarm list -w table                   | 4   | table not supported as output format
defrag --bogus                        | 1   | unknown flag: --bogus
version --bogus                       | 1   | unknown flag: --bogus
make-mirror                           | 128 | make-mirror takes one destination argument
make-mirror h:port                    | 1   | the destination: endpoint http://h:port: expected a port from 0 to 65535, found "port"
completion                            | 128 | completion takes one of bash, fish and zsh, found []
snapshot save f                       | 4   | the command snapshot is not available yet
user add u                            | 4   | the command user is not available yet
get k --cacert=f                      | 4   | TLS is not available yet
get k --user=u                        | 4   | authentication is not available yet
get k --discovery-srv=d               | 4   | discovery by DNS is not available yet
bogus                                 | 1   | unknown command "bogus" for "pawld ctl"
"#;

const BIG: &str = "99999999999999999999";

#[test]
fn what_makes_no_sense_is_refused_as_etcdctl_does() {
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    let mut client = member.client();
    for number in 2..=6 {
        client.call(&["PUT", "k", &number.to_string()]).unwrap();
    }
    client.call(&["COMPACT", "4"]).unwrap();
    let endpoints = format!("--endpoints={}", member.address());
    let mut wrong = String::new();
    for row in TABLE.lines().filter(|row| !row.is_empty()) {
        let row = row.replace("BIG", BIG);
        let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
        let &[line, exit, complaint] = &cells[..] else { panic!("a row has three cells: {row}") };
        let words = line.split(' ').map(|word| if word == "''" { "" } else { word });
        // Nearer to the command counts: what a line says of endpoints stays.
        let (code, out, err) = run(pawlctl(&[&endpoints]).args(words));
        if (code.to_string().as_str(), out.as_str(), err.as_str())
            != (exit, "", &format!("Error: {complaint}\n"))
        {
            wrong.push_str(&format!("{line}\n  {code} {out}{err}"));
        }
    }
    assert!(wrong.is_empty(), "other than the table says:\n{wrong}");
    assert_eq!(
        member.revision(),
        Some(10),
        "nothing has happened, but that two locks were taken and given back"
    );
}

/// What begins behind its end holds nothing; a watch of it is an error.
#[test]
fn spans_that_end_before_they_begin() {
    let cluster = Cluster::start(&Setup::single());
    cluster.put("k", "v");
    let endpoints = format!("--endpoints={}", cluster.members[0].address());
    for (line, exit, printed, complaints) in [
        ("get z a", 0, "", ""),
        ("get k k", 0, "", ""),
        ("del z a", 0, "0\n", ""),
        ("get k --rev=-1", 0, "k\nv\n", ""),
        ("get k --limit=-5", 0, "k\nv\n", ""),
        (
            "watch z a",
            5,
            "",
            "watch was canceled (mvcc: watcher range is empty)\nError: watch is canceled by the server\n",
        ),
        (
            "watch k --rev=-1",
            5,
            "",
            "watch was canceled (etcdserver: mvcc: required revision has been compacted)\n\
             Error: watch is canceled by the server\n",
        ),
    ] {
        let (code, out, err) = run(pawlctl(&[&endpoints]).args(line.split(' ')));
        assert_eq!((code, out.as_str(), err.as_str()), (exit, printed, complaints), "{line}");
    }
}
