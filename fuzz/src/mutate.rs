//! Changes to an input that find what decoders forget: lengths at their bounds, cut ends, repeated parts.

use pawl::base::Rng;

const INPUT_BYTES_MAX: usize = 128 << 10;
const LENGTHS: [u32; 10] = [0, 1, 2, 127, 128, 255, 65_535, 0x7fff_ffff, 0x8000_0000, u32::MAX];

/// One to eight changes in place; now and then a half of another input behind the first half of this one.
pub fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut Rng) {
    for _ in 0..rng.between(1, 8) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        match rng.below(9) {
            0 if at < input.len() => input[at] ^= 1 << rng.below(8),
            1 if at < input.len() => input[at] = rng.next_u64() as u8,
            2 => input.truncate(at),
            3 => input.insert(at, rng.next_u64() as u8),
            4 if at < input.len() => drop(input.remove(at)),
            5 => overwrite(input, at, &LENGTHS[rng.below(10) as usize].to_le_bytes()),
            6 => overwrite(input, at, &rng.next_u64().to_le_bytes()),
            7 => {
                let end = at + rng.below((input.len() - at).min(64) as u64 + 1) as usize;
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            8 => {
                let other = &corpus[rng.below(corpus.len() as u64) as usize];
                input.truncate(at);
                input.extend_from_slice(&other[rng.below(other.len() as u64 + 1) as usize..]);
            }
            _ => {}
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    let count = bytes.len().min(input.len() - at);
    input[at..at + count].copy_from_slice(&bytes[..count]);
}
