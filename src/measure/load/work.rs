//! What is asked: the words of one request after another.

use crate::base::Rng;

/// Of which keys, and how large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// What each begins with.
    pub prefix: Vec<u8>,
    /// Bytes of each key, with the prefix; behind that the number, the high bytes first, so numbers that follow each other lie side by side.
    pub key_bytes: usize,
    pub value_bytes: usize,
    /// Keys are numbers below this.
    pub count: u64,
    /// In their order, and again from the first; otherwise at random.
    pub sequential: bool,
}

/// What a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Put,
    /// This range; without one, a key of [`Keys`].
    Range {
        range: Option<Range>,
        serializable: bool,
    },
    /// A transaction of so many puts of different keys.
    TxnPut {
        puts: usize,
    },
    /// Transactions of one read or one put; so many of a thousand read.
    TxnMixed {
        reads_permille: u64,
        range: Option<Range>,
        serializable: bool,
        limit: u64,
    },
    /// Of these leases in turn.
    KeepAlive {
        leases: Vec<i64>,
    },
}

/// From a key to before another, or one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub from: Vec<u8>,
    pub to: Option<Vec<u8>>,
}

/// Makes requests.
#[derive(Clone, Debug)]
pub struct Work {
    kind: Kind,
    keys: Keys,
    rng: Rng,
    next: u64,
    value: Vec<u8>,
}

impl Work {
    pub fn new(kind: Kind, keys: Keys, seed: u64) -> Work {
        let mut rng = Rng::new(seed);
        let mut value = vec![0; keys.value_bytes];
        rng.fill(&mut value);
        Work { kind, keys, rng, next: 0, value }
    }

    /// The next request, at the end of `out`.
    pub fn put_request(&mut self, out: &mut Vec<u8>) {
        match self.kind.clone() {
            Kind::Put => {
                let key = self.next_key();
                put_words(&[b"PUT", &key, &self.value], out);
            }
            Kind::Range { range, serializable } => {
                let range = range.unwrap_or_else(|| Range { from: self.next_key(), to: None });
                put_words(&range.words(serializable, None), out);
            }
            Kind::TxnPut { puts } => {
                let keys: Vec<Vec<u8>> = self.next_keys(puts);
                let ops = keys.iter().flat_map(|key| [&b"PUT"[..], key, &self.value]);
                let words: Vec<&[u8]> =
                    [&b"TXN"[..], b"THEN"].into_iter().chain(ops).chain([&b"END"[..]]).collect();
                put_words(&words, out);
            }
            Kind::TxnMixed { reads_permille, range, serializable, limit } => {
                let reads = self.rng.below(1_000) < reads_permille;
                let key = self.next_key();
                let put = [&b"PUT"[..], &key, &self.value];
                let range = range.unwrap_or_else(|| Range { from: key.clone(), to: None });
                let limit = (limit > 0).then(|| limit.to_string().into_bytes());
                let read = range.words(serializable, limit.as_deref());
                let ops: &[&[u8]] = if reads { &read } else { &put };
                let words = [&[&b"TXN"[..], b"THEN"], ops, &[&b"END"[..]]].concat();
                put_words(&words, out);
            }
            Kind::KeepAlive { leases } => {
                let lease = leases[(self.next % leases.len() as u64) as usize];
                self.next += 1;
                put_words(&[b"LEASE", b"KEEPALIVE", lease.to_string().as_bytes()], out);
            }
        }
    }

    /// The key of the next request, which is passed over.
    pub fn next_key(&mut self) -> Vec<u8> {
        let number =
            if self.keys.sequential { self.next % self.keys.count } else { self.rng.below(self.keys.count) };
        self.next += 1;
        self.key(number)
    }

    /// Different ones, as a transaction wants them: neighbours, from a random one on.
    fn next_keys(&mut self, count: usize) -> Vec<Vec<u8>> {
        let count = count as u64;
        let first = if self.keys.sequential { self.next } else { self.rng.below(self.keys.count) };
        self.next += count;
        (first..first + count).map(|number| self.key(number % self.keys.count)).collect()
    }

    fn key(&self, number: u64) -> Vec<u8> {
        let digits = number.to_be_bytes();
        let Keys { prefix, key_bytes, .. } = &self.keys;
        let mut key = prefix.clone();
        key.resize((*key_bytes).max(prefix.len()), 0);
        let kept = digits.len().min(key.len() - prefix.len());
        let at = key.len() - kept;
        key[at..].copy_from_slice(&digits[digits.len() - kept..]);
        key
    }
}

impl Range {
    fn words<'a>(&'a self, serializable: bool, limit: Option<&'a [u8]>) -> Vec<&'a [u8]> {
        let mut words: Vec<&[u8]> = vec![b"RANGE", &self.from];
        if let Some(to) = &self.to {
            words.extend([&b"TO"[..], to]);
        }
        if let Some(limit) = limit {
            words.extend([&b"LIMIT"[..], limit]);
        }
        if serializable {
            words.push(b"SERIALIZABLE");
        }
        words
    }
}

/// A request as an array of strings, at the end of `out`.
pub fn put_words(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys = Keys { prefix: Vec::new(), key_bytes: 4, value_bytes: 3, count: 10, sequential: true };

    /// The words of so many requests, values as `V`.
    fn words(kind: Kind, keys: Keys, count: usize) -> Vec<String> {
        let mut work = Work::new(kind, keys, 9);
        let value = work.value.clone();
        (0..count)
            .map(|_| {
                let mut out = Vec::new();
                work.put_request(&mut out);
                let mut lines = out.split(|byte| *byte == b'\n').skip(1);
                let mut words = Vec::new();
                while let (Some(length), Some(word)) = (lines.next(), lines.next()) {
                    assert_eq!(length, format!("${}\r", word.len() - 1).as_bytes());
                    let word = &word[..word.len() - 1];
                    let key = word.iter().map(|byte| if *byte < 32 { *byte + b'0' } else { *byte }).collect();
                    words.push(if word == value { "V".into() } else { String::from_utf8(key).unwrap() });
                }
                words.join(" ")
            })
            .collect()
    }

    #[test]
    fn keys_follow_each_other_and_begin_again() {
        let keys = Keys { count: 2, ..KEYS };
        assert_eq!(words(Kind::Put, keys, 3), ["PUT 0000 V", "PUT 0001 V", "PUT 0000 V"]);
        let long = Keys { key_bytes: 10, ..KEYS };
        assert_eq!(words(Kind::Put, long, 2)[1], "PUT 0000000001 V");
        let under = Keys { prefix: b"p/".to_vec(), key_bytes: 5, ..KEYS };
        assert_eq!(words(Kind::Put, under, 2)[1], "PUT p/001 V");
        let short = Keys { key_bytes: 1, ..KEYS };
        assert_eq!(words(Kind::Put, short, 2)[1], "PUT 1 V");
    }

    #[test]
    fn keys_at_random_stay_below_their_count() {
        let keys = Keys { sequential: false, count: 3, ..KEYS };
        let mut seen = words(Kind::Put, keys, 100);
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["PUT 0000 V", "PUT 0001 V", "PUT 0002 V"]);
    }

    #[test]
    fn each_kind_has_its_words() {
        let range = Some(Range { from: b"a".to_vec(), to: Some(b"b".to_vec()) });
        let kind = Kind::Range { range: range.clone(), serializable: true };
        assert_eq!(words(kind, KEYS, 1), ["RANGE a TO b SERIALIZABLE"]);
        assert_eq!(words(Kind::Range { range: None, serializable: false }, KEYS, 1), ["RANGE 0000"]);
        assert_eq!(words(Kind::TxnPut { puts: 2 }, KEYS, 2)[1], "TXN THEN PUT 0002 V PUT 0003 V END");
        let mixed = |reads_permille| Kind::TxnMixed {
            reads_permille,
            range: range.clone(),
            serializable: false,
            limit: 5,
        };
        assert_eq!(words(mixed(1_000), KEYS, 1), ["TXN THEN RANGE a TO b LIMIT 5 END"]);
        assert_eq!(words(mixed(0), KEYS, 1), ["TXN THEN PUT 0000 V END"]);
        let kind = Kind::KeepAlive { leases: vec![7, 8] };
        assert_eq!(words(kind, KEYS, 3), ["LEASE KEEPALIVE 7", "LEASE KEEPALIVE 8", "LEASE KEEPALIVE 7"]);
    }
}
