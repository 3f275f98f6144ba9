//! What the system says of this process. procfs is no disk: these reads never wait for one.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Zeroes where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of all threads, in user space and in the kernel.
    pub cpu_ms: u64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_files: u64,
    pub open_files_max: u64,
}

/// Reads it now: a few system calls.
pub fn usage() -> Usage {
    let memory = memory();
    Usage {
        cpu_ms: cpu_ms(),
        resident_bytes: memory.0,
        virtual_bytes: memory.1,
        open_files: open_files(),
        open_files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    }
}

fn cpu_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + time.tv_nsec as u64 / 1_000_000
}

/// Resident, and the whole address space: proc_pid_statm(5), in pages.
fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let page_bytes = rustix::param::page_size() as u64;
    let mut pages = text.split(' ').map(|word| word.trim().parse::<u64>().unwrap_or(0) * page_bytes);
    let virtual_bytes = pages.next().unwrap_or(0);
    (pages.next().unwrap_or(0), virtual_bytes)
}

/// Since Linux 6.2 the size of the directory is their number; before, they are counted.
fn open_files() -> u64 {
    let path = "/proc/self/fd";
    match fs::metadata(path).map_or(0, |found| found.len()) {
        0 => fs::read_dir(path).map_or(0, |entries| entries.count() as u64),
        count => count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_files() {
        let usage = usage();
        assert!(usage.resident_bytes > 1 << 20 && usage.virtual_bytes > usage.resident_bytes, "{usage:?}");
        assert!(usage.open_files >= 3 && usage.open_files_max >= usage.open_files, "{usage:?}");
    }
}
