"""Pawl through redis-py, as a program would use it: RESP2 and RESP3. Usage: redis_py.py PORT"""

import sys

import redis

PORT = int(sys.argv[1])
LIMIT_BYTES = 1_572_864  # the default of --max-request-bytes


def check(found, expected, what):
    if found != expected:
        raise SystemExit(f"{what}: found {found!r:.300}, expected {expected!r:.300}")


def refused(client, code, *words):
    try:
        found = client.execute_command(*words)
    except redis.ResponseError as error:
        # redis-py cuts the leading "ERR " off; other codes stay.
        text = str(error)
        check(code == "ERR" or text.startswith(code), True, f"{words!r:.100} was refused with {text!r}")
    else:
        raise SystemExit(f"{words!r:.100} answered {found!r:.100}, expected an error")


def fields(reply):
    """RESP3 has maps; RESP2 has names and values in turn."""
    if isinstance(reply, dict):
        return reply
    return dict(zip(reply[::2], reply[1::2]))


def converse(protocol):
    db = redis.Redis(host="127.0.0.1", port=PORT, protocol=protocol, socket_timeout=20)
    run = db.execute_command
    check(db.ping(), True, "PING")
    check(db.echo("hello"), b"hello", "ECHO")
    run("DEL", "", "PREFIX")

    # Writes count revisions.
    first = run("PUT", "a", "1")
    check(run("PUT", "a", "2"), first + 1, "PUT")
    check(db.set("b", "3"), True, "SET")
    check(db.get("a"), b"2", "GET")
    check(run("GET", "a", "REV", first), b"1", "GET REV")
    check(db.get("nothing"), None, "GET of nothing")
    check(run("GET", "a", "SERIALIZABLE"), b"2", "GET SERIALIZABLE")
    check(db.exists("a", "b", "c"), 2, "EXISTS")
    check(db.dbsize(), 2, "DBSIZE")
    revision, previous = run("PUT", "a", "4", "PREV")
    check((revision, previous[1]), (first + 3, b"2"), "PUT PREV")
    check(run("PUT", "a", "", "KEEPVALUE"), first + 4, "PUT KEEPVALUE")
    check(db.get("a"), b"4", "the kept value")
    refused(db, "NOKEY", "PUT", "nothing", "", "KEEPVALUE")

    # Ranges.
    for number in range(10):
        run("PUT", f"k{number}", f"v{number}")
    found = fields(run("RANGE", "k", "PREFIX"))
    check((found[b"count"], bool(found[b"more"]), len(found[b"kvs"])), (10, False, 10), "RANGE PREFIX")
    check([kv[1] for kv in found[b"kvs"]], [b"v%d" % n for n in range(10)], "values in key order")
    found = fields(run("RANGE", "k2", "TO", "k5", "LIMIT", 2, "DESC"))
    check((found[b"count"], bool(found[b"more"])), (3, True), "RANGE LIMIT")
    check([kv[0] for kv in found[b"kvs"]], [b"k4", b"k3"], "descending keys")
    found = fields(run("RANGE", "k8", "FROM", "KEYS"))
    check([kv[:2] for kv in found[b"kvs"]], [[b"k8", None], [b"k9", None]], "RANGE FROM KEYS")
    found = fields(run("RANGE", "k", "PREFIX", "COUNT"))
    check((found[b"count"], found[b"kvs"]), (10, []), "RANGE COUNT")
    key, value, created, modified, version, lease = fields(run("RANGE", "a"))[b"kvs"][0]
    check((key, value, version, lease), (b"a", b"4", 4, 0), "a kv")
    check((created, modified), (first, first + 4), "its revisions")
    check(fields(run("RANGE", "k", "PREFIX", "REV", first))[b"count"], 0, "a range of the past")

    # Deletes.
    check(db.delete("a"), 1, "DEL")
    check(db.delete("a"), 0, "DEL of nothing")
    refused(db, "ERR", "DEL", "k0", "k1")
    found = fields(run("DEL", "k0", "TO", "k3", "PREV"))
    check((found[b"deleted"], [kv[1] for kv in found[b"prevs"]]), (3, [b"v0", b"v1", b"v2"]), "DEL PREV")
    check(run("DEL", "k", "PREFIX"), 7, "DEL PREFIX")

    # A transaction, and one within it.
    nested = ["TXN", "IF", "VERSION", "t", "=", "0", "THEN", "GET", "b", "END"]
    found = fields(run("TXN", "IF", "VALUE", "b", "=", "3", "THEN", "PUT", "t", "1", "RANGE", "t", *nested, "END"))
    done = found[b"responses"]
    check(bool(found[b"succeeded"]), True, "TXN")
    check((done[0], fields(done[1])[b"kvs"][0][1]), (found[b"revision"], b"1"), "what it did")
    check(fields(done[2])[b"responses"], [b"3"], "what the nested one did")
    refused(db, "DUPKEY", "TXN", "THEN", "DEL", "t", "PUT", "t", "2", "END")
    check(run("DEL", "t"), 1, "what it left")

    # Any bytes, also such as look like the grammar.
    everything = bytes(range(256))
    for key in (everything, b"\r\n", b"\x00", b"PREFIX", b"TO", b"REV", b"*1\r\n$4\r\nQUIT\r\n", "ключ".encode()):
        run("PUT", key, everything + key)
        check(db.get(key), everything + key, f"the value of {key!r:.40}")
        check(run("DEL", key), 1, f"DEL {key!r:.40}")
    run("PUT", "empty", "")
    check(db.get("empty"), b"", "an empty value")

    # Up to the limit, and beyond it.
    for size in (1, 511, 512, 4_095, 4_096, 65_536, 1_000_000, LIMIT_BYTES - 512):
        value = (everything * (size // 256 + 1))[:size]
        run("PUT", "large", value)
        check(db.get("large"), value, f"{size} bytes")
    refused(db, "TOOLARGE", "PUT", "large", b"x" * (LIMIT_BYTES + 1))
    check(len(db.get("large")), LIMIT_BYTES - 512, "what was there before the refusal")
    run("PUT", b"k" * 100_000, "long key")
    check(db.get(b"k" * 100_000), b"long key", "a long key")
    run("DEL", b"k" * 100_000)

    # Pipelines keep their order: each read sees the write before it.
    pipe = db.pipeline(transaction=False)
    for number in range(500):
        pipe.execute_command("PUT", "counter", number)
        pipe.get("counter")
    answers = pipe.execute()
    check(answers[1::2], [b"%d" % n for n in range(500)], "a pipeline")

    # What libraries and people ask beside that.
    status = fields(run("STATUS"))
    check(status[b"leader"] != 0 and status[b"revision"] > first, True, "STATUS")
    check(len(run("MEMBER", "LIST")) >= 1, True, "MEMBER LIST")
    check(db.client_setname("tester"), True, "CLIENT SETNAME")
    check(db.client_id() > 0, True, "CLIENT ID")
    check(isinstance(db.info(), dict), True, "INFO")
    check(db.command_count() > 10, True, "COMMAND COUNT")
    check("name" in db.config_get("*"), True, "CONFIG GET")
    check(run("SELECT", 0) in (True, b"OK", "OK"), True, "SELECT 0")
    header, reply = (lambda c: (c.execute_command("HEADER", "ON"), c.execute_command("GET", "b"))[1])(
        redis.Redis(host="127.0.0.1", port=PORT, protocol=protocol, single_connection_client=True)
    )
    check((len(header), reply), (4, b"3"), "HEADER ON")
    refused(db, "ERR", "MULTI")
    refused(db, "ERR", "NONSENSE")
    refused(db, "FUTURE", "GET", "a", "REV", 10**9)
    db.close()


for protocol in (2, 3):
    converse(protocol)
    print(f"RESP{protocol}: fine")
