//! How a call ends: a status and a text.

use std::borrow::Cow;

use crate::api::Fault;
use crate::api::status::RpcStatus;

/// The end of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: RpcStatus,
    pub text: Cow<'static, str>,
}

impl Status {
    pub const OK: Status = Status { code: RpcStatus::Ok, text: Cow::Borrowed("") };

    pub fn new(code: RpcStatus, text: impl Into<Cow<'static, str>>) -> Status {
        Status { code, text: text.into() }
    }

    pub fn of(fault: &Fault) -> Status {
        Status::new(fault.status(), fault.etcd_text().to_string())
    }
}
