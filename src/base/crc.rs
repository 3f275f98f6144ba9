//! The one checksum: CRC-32/IEEE (polynomial 0x04C11DB7 reflected, as in zlib and Ethernet). And CRC-32C, for what must be
//! the same number as etcd's.

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

/// CRC-32C (Castagnoli) of `bytes`, continued from that of what came before; 0 = nothing.
pub fn crc32c_from(before: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(before, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An example of RFC 3720, B.4, and the usual check.
    #[test]
    fn etcds_is_castagnolis() {
        assert_eq!(crc32c_from(0, &[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c_from(crc32c_from(0, b"1234"), b"56789"), 0xe306_9283);
    }

    #[test]
    fn it_is_the_ieee_polynomial() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32_from(crc32(b"1234"), b"56789"), crc32(b"123456789"));
    }
}
