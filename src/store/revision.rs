//! Revisions as the store orders and writes them: the main one of the whole store, and the place of a change among
//! those that share it (`storage-format.md` §6.2).

use super::record::Malformed;
use crate::base::Revision;

/// The key of a change in the tree.
pub const REV_BYTES: usize = 12;

/// Names one change of one key. Orders as it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rev {
    pub main: Revision,
    pub sub: u32,
}

impl Rev {
    pub fn new(main: Revision, sub: u32) -> Rev {
        Rev { main, sub }
    }

    /// The first one that may follow.
    pub fn next(self) -> Rev {
        match self.sub.checked_add(1) {
            Some(sub) => Rev { sub, ..self },
            None => Rev::new(self.main + 1, 0),
        }
    }

    /// Big-endian, so that the tree orders changes by revision.
    pub fn encode(self) -> [u8; REV_BYTES] {
        let mut out = [0; REV_BYTES];
        out[..8].copy_from_slice(&self.main.to_be_bytes());
        out[8..].copy_from_slice(&self.sub.to_be_bytes());
        out
    }

    pub fn decode(encoded: &[u8]) -> Result<Rev, Malformed> {
        let bytes: &[u8; REV_BYTES] = encoded
            .try_into()
            .map_err(|_| Malformed(format!("a revision of {} bytes, not {REV_BYTES}", encoded.len())))?;
        let (main, sub) = bytes.split_first_chunk::<8>().expect("8 of 12 bytes");
        let sub: [u8; 4] = sub.try_into().expect("4 of 12 bytes");
        Ok(Rev::new(u64::from_be_bytes(*main), u32::from_be_bytes(sub)))
    }
}

impl std::fmt::Display for Rev {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}", self.main, self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes of `storage-format.md` §6.2. A change here is a change of the format.
    #[test]
    fn the_encoding_never_changes() {
        assert_eq!(Rev::new(258, 3).encode(), [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);
        assert!(Rev::decode(&[0; 11]).is_err());
    }

    proptest! {
        #[test]
        fn encodings_order_as_revisions(a in any::<(u64, u32)>(), b in any::<(u64, u32)>()) {
            let (a, b) = (Rev::new(a.0, a.1), Rev::new(b.0, b.1));
            prop_assert_eq!(a.encode().cmp(&b.encode()), a.cmp(&b));
            prop_assert_eq!(Rev::decode(&a.encode()).unwrap(), a);
        }
    }
}
