//! A 64-bit digest of a sequence of byte strings: members compare it to find that they differ, and a snapshot
//! ends with it. Ours, because its value is part of a format. It guards against mistakes and broken hardware,
//! not against somebody who wants two contents to collide.
//!
//! Each string is mixed in as its length and then its little-endian 8-byte words, the last one filled with
//! zeroes. A word is mixed by a 64 by 64 bit multiplication whose halves are folded together (the method of
//! wyhash): every bit of the word reaches every bit of the state.

/// The running digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

/// Odd, without a pattern: the first 64 bits behind the point of the square roots of 2 and 3, made odd.
const MULTIPLIER: u64 = 0x6a09_e667_f3bc_c909;
const OFFSET: u64 = 0xbb67_ae85_84ca_a73b;

impl Default for Digest {
    fn default() -> Digest {
        Digest::new()
    }
}

impl Digest {
    pub const fn new() -> Digest {
        Digest(OFFSET)
    }

    /// Goes on from a [`Digest::value`].
    pub fn resume(value: u64) -> Digest {
        Digest(value)
    }

    /// Mixes one string in. Two strings are not the same as their concatenation.
    pub fn string(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.number(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.number(u64::from_le_bytes(word));
        }
    }

    pub fn number(&mut self, number: u64) {
        // The addition keeps a word that equals the state from wiping it out.
        let mixed = u128::from((self.0 ^ number).wrapping_add(OFFSET)) * u128::from(MULTIPLIER);
        self.0 = (mixed as u64) ^ ((mixed >> 64) as u64);
    }

    pub const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn of(strings: &[&[u8]]) -> u64 {
        let mut digest = Digest::new();
        for string in strings {
            digest.string(string);
        }
        digest.value()
    }

    /// Part of the format of snapshots: `storage-format.md` §8.
    #[test]
    fn the_values_never_change() {
        assert_eq!(of(&[]), 0xbb67_ae85_84ca_a73b);
        assert_eq!(of(&[b""]), 0x5874_3c3c_52fd_9d96);
        assert_eq!(of(&[b"a ratchet", b"a pawl"]), 0x8c41_48eb_dddb_b938);
    }

    #[test]
    fn close_inputs_differ() {
        let mut seen = BTreeSet::new();
        let base = [7u8; 24];
        for bit in 0..base.len() * 8 {
            let mut bytes = base;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(of(&[&bytes])));
        }
        for cut in 0..=base.len() {
            assert!(seen.insert(of(&[&base[..cut], &base[cut..]])), "cut at {cut}");
            assert!(seen.insert(of(&[&base[..cut]])), "length {cut}");
        }
    }
}
