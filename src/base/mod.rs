//! Vocabulary that every other module uses. Imports nothing else of ours.

pub mod codec;
pub mod crc;
pub mod error;
pub mod histogram;
pub mod ids;
pub mod limits;
pub mod planted;
pub mod rng;
pub mod time;

pub use codec::{Reader, Writer};
pub use error::{Corruption, Error, Result};
pub use histogram::Histogram;
pub use ids::{ClusterId, EntryId, Index, LeaseId, MemberId, Revision, Term};
pub use rng::Rng;
pub use time::Mono;
