//! Version texts. Scripts cut the second or third word of a line out of them, so under etcd's names the
//! lines are etcd's, and say whose interface this is *and* that it is Pawl.

use super::Role;
pub use crate::api::VERSION as PAWL;
use crate::api::etcd_version;

/// Of that interface, as etcdctl prints it.
const API: &str = "3.5";

/// Of this program.
pub fn etcd_compatible() -> String {
    etcd_version(PAWL)
}

/// A server's own version as `program` shows it. Scripts that call etcdctl compare it with releases of etcd.
pub fn of_server(program: &str, version: &str) -> String {
    if program.starts_with("etcd") { etcd_version(version) } else { version.into() }
}

/// `program`: the name that was typed, without directories.
pub fn text(role: Role, program: &str) -> String {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let api = format!("API version: {API}\n");
    match (role, program.starts_with("etcd")) {
        (Role::Server, true) => {
            format!("etcd Version: {}\nPawl Version: {PAWL}\nOS/Arch: {os}/{arch}\n", etcd_compatible())
        }
        (Role::Server, false) => {
            format!("{program} version: {PAWL}\netcd Version: {}\nOS/Arch: {os}/{arch}\n", etcd_compatible())
        }
        (Role::Client | Role::Offline, true) => format!("{program} version: {}\n{api}", etcd_compatible()),
        (Role::Client | Role::Offline, false) => format!("{program} version: {PAWL}\n{api}"),
    }
}
