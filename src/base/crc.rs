//! The one checksum: CRC-32/IEEE (polynomial 0x04C11DB7 reflected, as in zlib and Ethernet).

/// The checksum of `bytes`.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The checksum of `bytes` continued from `seed`: the checksum of what came before, or any number that
/// the bytes must be bound to.
pub fn crc32_from(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_ieee_polynomial() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32_from(crc32(b"1234"), b"56789"), crc32(b"123456789"));
    }
}
