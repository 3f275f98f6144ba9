//! How long a client waits, as gRPC and its gateway spell it: `grpc-timeout`.

use crate::base::time::{MS, Nanos, SECOND};

/// The longest timeout that is a deadline; what is longer is none.
const TIMEOUT_MAX: Nanos = 366 * 24 * 60 * 60 * SECOND;

/// Up to eight digits and a unit. One that is not well formed is none, as gRPC libraries have it.
pub fn parse(value: &[u8]) -> Option<Nanos> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let unit = match unit {
        b'H' => 60 * 60 * SECOND,
        b'M' => 60 * SECOND,
        b'S' => SECOND,
        b'm' => MS,
        b'u' => MS / 1_000,
        b'n' => 1,
        _ => return None,
    };
    number.checked_mul(unit).filter(|nanos| *nanos <= TIMEOUT_MAX)
}
