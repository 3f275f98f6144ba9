//! One client port, several protocols: which one it is shows in the first bytes of a connection.
//!
//! A protocol that this version does not serve is told so in its own words, because a client that gets
//! bytes of another protocol reports nonsense ("first record does not look like a TLS handshake", "frame
//! too large") and its user looks for the fault in the wrong place. Nothing of what the client sent is
//! repeated to it, and the connection is closed: a browser that is tricked into posting to this port must
//! not get a single line of its body executed.

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// The line protocol: RESP arrays, or lines typed by a person.
    Line,
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge: gRPC.
    Http2,
    Tls,
    /// So far it could be more than one of them.
    NeedMore,
}

/// A TLS record of type handshake: how every ClientHello begins. Not a byte that a person can type.
const TLS_HANDSHAKE: u8 = 0x16;

/// RFC 9113 §3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A first line that has not ended after so many bytes is no HTTP request line: servers refuse longer ones.
const REQUEST_LINE_BYTES_MAX: usize = 8 << 10;

/// Looks at the first bytes of one connection as they arrive. No byte is looked at twice, so a client that
/// sends one at a time costs no more than one that sends all at once.
#[derive(Debug, Default)]
pub struct Sniffer {
    scanned: usize,
}

impl Sniffer {
    /// `first`: everything received so far. Nothing of it is consumed.
    pub fn sniff(&mut self, first: &[u8]) -> Sniffed {
        match first {
            [] => return Sniffed::NeedMore,
            [TLS_HANDSHAKE, ..] => return Sniffed::Tls,
            [b'*', ..] => return Sniffed::Line,
            _ => {}
        }
        let compared = first.len().min(HTTP2_PREFACE.len());
        if first[..compared] == HTTP2_PREFACE[..compared] {
            return if compared == HTTP2_PREFACE.len() { Sniffed::Http2 } else { Sniffed::NeedMore };
        }
        let window = &first[..first.len().min(REQUEST_LINE_BYTES_MAX)];
        // The preface's own line ends were not scanned while it was still possible.
        match window[self.scanned..].iter().position(|&byte| byte == b'\n') {
            Some(at) if is_http1_request_line(&window[..self.scanned + at]) => Sniffed::Http1,
            Some(_) => Sniffed::Line,
            None if window.len() == REQUEST_LINE_BYTES_MAX => Sniffed::Line,
            None => {
                self.scanned = window.len();
                Sniffed::NeedMore
            }
        }
    }
}

/// True for `GET / HTTP/1.1`, not for `GET foo`. `line` is without its line feed.
pub(super) fn is_http1_request_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.split_last() {
        Some((digit, head)) => digit.is_ascii_digit() && head.ends_with(b" HTTP/1."),
        None => false,
    }
}

/// What a client of a protocol that is not served is told before its connection is closed. Empty for those that are, and
/// while it is not known.
pub fn refusal(sniffed: Sniffed) -> &'static [u8] {
    match sniffed {
        Sniffed::Line | Sniffed::Http2 | Sniffed::NeedMore => b"",
        // Only where there are ports for it alone.
        Sniffed::Http1 => {
            b"HTTP/1.1 421 Misdirected Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
              Content-Length: 76\r\nConnection: close\r\n\r\n\
              This server has ports of their own for HTTP: see --listen-client-http-urls.\n"
        }
        // Alert record, TLS 1.0 record version (what every client accepts before negotiation), 2 bytes:
        // fatal, handshake_failure (RFC 8446 §6).
        Sniffed::Tls => &[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sniff(first: &[u8]) -> Sniffed {
        Sniffer::default().sniff(first)
    }

    #[test]
    fn first_bytes_tell() {
        for (first, expected) in [
            (&b""[..], Sniffed::NeedMore),
            (b"*", Sniffed::Line),
            (b"*3\r\n$3\r\nPUT", Sniffed::Line),
            (b"\x16", Sniffed::Tls),
            (b"\x16\x03\x01\x02\x00", Sniffed::Tls),
            (b"P", Sniffed::NeedMore),
            (b"PRI * HTTP/2.0\r\n", Sniffed::NeedMore),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00", Sniffed::Http2),
            (b"PRI foo\r\n", Sniffed::Line),
            (b"PING\r\n", Sniffed::Line),
            (b"GET / HTTP/1.1", Sniffed::NeedMore),
            (b"GET / HTTP/1.1\r\n", Sniffed::Http1),
            (b"GET / HTTP/1.0\n", Sniffed::Http1),
            (b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\n", Sniffed::Http1),
            (b"GET foo\r\n", Sniffed::Line),
            (b"GET HTTP/1.1\r\n", Sniffed::Http1),
            (b"GET foo HTTP/1.x\r\n", Sniffed::Line),
            (b"\n", Sniffed::Line),
        ] {
            assert_eq!(sniff(first), expected, "{}", first.escape_ascii());
        }
    }

    #[test]
    fn arrival_in_pieces_changes_nothing() {
        for whole in
            [&b"GET /health HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRIME\n", b"PUT a b\n"]
        {
            let mut sniffer = Sniffer::default();
            let mut last = Sniffed::NeedMore;
            for cut in 1..=whole.len() {
                assert_eq!(last, Sniffed::NeedMore, "decided before {cut} of {}", whole.escape_ascii());
                last = sniffer.sniff(&whole[..cut]);
            }
            assert_eq!(last, sniff(whole));
        }
    }

    #[test]
    fn a_line_without_end_is_left_to_the_line_protocol() {
        assert_eq!(sniff(&vec![b'a'; REQUEST_LINE_BYTES_MAX - 1]), Sniffed::NeedMore);
        assert_eq!(sniff(&vec![b'a'; REQUEST_LINE_BYTES_MAX]), Sniffed::Line);
    }

    #[test]
    fn refusals_are_well_formed() {
        let http1 = std::str::from_utf8(refusal(Sniffed::Http1)).unwrap();
        let (head, body) = http1.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head} for {}", body.len());

        let tls = refusal(Sniffed::Tls);
        assert_eq!(usize::from(tls[4]), tls.len() - 5);
    }
}
