//! etcd's v3 API: what a call means, whatever carries it.
//!
//! ```text
//!   carrier -- message --> Dialogue --> unary, watch, ... --> Call ---> node
//!           <-- outbox <-----+---------- messages <---------- Reply <---+
//! ```
//!
//! A carrier ([`super::grpc`]) finds a method by its path ([`methods`]), begins a [`Dialogue`] on a lane of its own, and
//! gives it the client's messages as bytes of protocol buffers. What the dialogue asks of the node lies on the [`Desk`]; what the
//! client is to be told waits in the dialogue's [`Outbox`], messages in their order and then a [`Status`]. Nothing here knows
//! connections, streams or windows: the carrier says when the client has no more to say (`on_end`), when it took something
//! (`on_taken`), and when it is gone (`leave`).
//!
//! Messages are `prost`'s ([`messages`]); what etcd spells by conventions is spelled out in [`convert`].

mod convert;
mod counts;
pub mod desk;
mod dialogue;
pub mod frame;
pub mod messages;
pub mod methods;
mod outbox;
pub mod schema;
mod status;
pub mod timeout;
mod unary;
mod watch;

pub use counts::{Counted, Counts};
pub use desk::Desk;
pub use dialogue::Dialogue;
pub use outbox::{Outbox, Room};
pub use status::Status;
