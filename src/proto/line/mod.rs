//! The line protocol: RESP arrays and typed lines in, RESP2 or RESP3 out.

use crate::api::Limits;
use crate::base::{ClusterId, MemberId};

/// What a connection must know about the server it belongs to. Made once, shared by all adapters.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    pub cluster: ClusterId,
    pub member: MemberId,
    /// This member's `--name`.
    pub name: String,
    /// The program's version, as `STATUS` reports it.
    pub version: &'static str,
    pub limits: Limits,
    /// Name and value of every flag in effect, for `CONFIG GET`.
    pub config: Vec<(String, String)>,
}
