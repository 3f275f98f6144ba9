//! One function per decoder. A target panics where the decoder breaks a promise; a refused input is fine.

use bytes::{Bytes, BytesMut};
use pawl::api::command;
use pawl::base::Rng;

/// Gets the input, and dice for whatever else it has to choose.
pub type Target = fn(&[u8], &mut Rng);

pub const ALL: &[(&str, Target)] = &[("command", logged_command)];

/// What decodes must encode to something that decodes to the same.
fn logged_command(input: &[u8], _rng: &mut Rng) {
    let payload = Bytes::copy_from_slice(input);
    let Ok((origin, decoded)) = command::decode(payload) else { return };
    assert_eq!(command::origin(input), Some(origin));
    let mut again = BytesMut::new();
    command::encode(origin, &decoded, &mut again);
    assert_eq!(command::decode(again.freeze()), Ok((origin, decoded)));
}
