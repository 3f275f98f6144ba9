//! Where a directory lies: its file system and how it is mounted, the device below, and what that says about syncs.

use std::path::{Path, PathBuf};

use crate::base::{Error, Result};

/// What was found out. What the system does not tell is left empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Absolute, without links.
    pub dir: PathBuf,
    /// As the kernel names it: `ext4`, `xfs`, `tmpfs`.
    pub file_system: String,
    /// The device, or what a network file system has instead.
    pub source: String,
    pub mount_point: PathBuf,
    pub mount_options: Vec<String>,
    pub free_bytes: u64,
    pub total_bytes: u64,
    pub device: Option<Device>,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As in `/sys/block`.
    pub name: String,
    /// It says that it turns.
    pub rotational: bool,
    /// It says that it holds writes in a cache until it is told to flush them.
    pub volatile_cache: bool,
}

/// How far a file system can be trusted with a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    Local,
    /// In memory: a sync does nothing.
    Memory,
    /// Somebody else's disk, behind a network.
    Network,
    /// In a process of its own (FUSE), which answers for its syncs.
    Foreign,
    /// Layers of a container, which copies a file when it is first changed.
    Layers,
}

const MEMORY: [&str; 3] = ["tmpfs", "ramfs", "rootfs"];
const NETWORK: [&str; 12] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "afs", "9p", "lustre", "gpfs", "glusterfs", "virtiofs"];
const LAYERS: [&str; 2] = ["overlay", "aufs"];

impl Place {
    /// Of a directory that is there.
    pub fn of(dir: &Path) -> Result<Place> {
        let dir = dir.canonicalize().map_err(|e| Error::io("look at", dir, e))?;
        let io = |e: rustix::io::Errno| Error::io("look at", &dir, e.into());
        let space = rustix::fs::statvfs(&dir).map_err(io)?;
        let device = rustix::fs::stat(&dir).map_err(io)?.st_dev;
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        // Where there is no /proc, nothing is known of the mount: that is no reason to stop.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut place = place_in(&mounts, &dir, device).unwrap_or_default();
        place.free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        place.total_bytes = space.f_blocks.saturating_mul(space.f_frsize);
        place.device = device_of(device);
        place.dir = dir;
        Ok(place)
    }

    pub fn nature(&self) -> Nature {
        let is = |names: &[&str]| names.contains(&self.file_system.as_str());
        if is(&MEMORY) {
            Nature::Memory
        } else if is(&NETWORK) {
            Nature::Network
        } else if is(&LAYERS) {
            Nature::Layers
        } else if self.file_system.starts_with("fuse") {
            Nature::Foreign
        } else {
            Nature::Local
        }
    }

    /// Mounted so that a sync does not flush the device's cache.
    pub fn is_without_barriers(&self) -> bool {
        self.mount_options.iter().any(|option| option == "nobarrier" || option == "barrier=0")
    }
}

/// The mount that holds `dir`, of the lines of `/proc/self/mountinfo` (proc(5)): the one with the longest path above it, of the
/// device that the directory is on if one is; some file systems (btrfs) have devices that no mount names.
fn place_in(mounts: &str, dir: &Path, device: (u32, u32)) -> Option<Place> {
    let device = format!("{}:{}", device.0, device.1);
    let mut found: Option<(bool, usize, Place)> = None;
    for line in mounts.lines() {
        let Some((same_device, place)) = mount_of(line, &device) else { continue };
        if !dir.starts_with(&place.mount_point) {
            continue;
        }
        let length = place.mount_point.as_os_str().len();
        // Of two mounts on one path the later one hides the other.
        if found.as_ref().is_none_or(|(same, longest, _)| (same_device, length) >= (*same, *longest)) {
            found = Some((same_device, length, place));
        }
    }
    found.map(|(_, _, place)| place)
}

/// One line: `36 35 98:0 /root /mnt rw,noatime shared:1 - ext3 /dev/root rw,errors=continue`.
fn mount_of(line: &str, device: &str) -> Option<(bool, Place)> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(2);
    let (on, _root, mount_point, options) = (front.next()?, front.next()?, front.next()?, front.next()?);
    let mut back = back.split(' ');
    let (file_system, source, of_all) = (back.next()?, back.next()?, back.next().unwrap_or_default());
    let mut mount_options: Vec<String> = Vec::new();
    for option in options.split(',').chain(of_all.split(',')).filter(|option| !option.is_empty()) {
        if !mount_options.iter().any(|one| one == option) {
            mount_options.push(unescaped(option));
        }
    }
    let place = Place {
        file_system: file_system.to_owned(),
        source: unescaped(source),
        mount_point: PathBuf::from(unescaped(mount_point)),
        mount_options,
        ..Place::default()
    };
    Some((on == device, place))
}

/// Spaces and their like are written `\040` there.
fn unescaped(word: &str) -> String {
    let mut parts = word.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

/// What the kernel says of a block device; a partition is asked for its disk.
fn device_of((major, minor): (u32, u32)) -> Option<Device> {
    let path = Path::new("/sys/dev/block").join(format!("{major}:{minor}")).canonicalize().ok()?;
    let disk = if path.join("queue").is_dir() { path.as_path() } else { path.parent()? };
    let told = |what: &str| std::fs::read_to_string(disk.join("queue").join(what)).ok();
    Some(Device {
        name: disk.file_name()?.to_string_lossy().into_owned(),
        rotational: told("rotational")?.trim() == "1",
        volatile_cache: told("write_cache")?.trim() == "write back",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro,nobarrier
23 22 0:5 / /dev rw,nosuid - devtmpfs devtmpfs rw,size=4k
30 22 0:31 / /srv/my\\040data rw - tmpfs tmpfs rw,size=64k
31 22 0:40 /sub /data rw,noatime - btrfs /dev/vdb rw,space_cache
not a line of it
32 22 0:41 / /data/far rw - nfs4 server:/export rw,hard,vers=4.2
33 22 0:42 / /data/far rw - overlay overlay rw,lowerdir=/a
";

    fn place(dir: &str, device: (u32, u32)) -> Place {
        place_in(MOUNTS, Path::new(dir), device).unwrap()
    }

    #[test]
    fn the_longest_mount_of_its_device_counts() {
        let root = place("/var/lib/pawl", (254, 0));
        assert_eq!((root.file_system.as_str(), root.source.as_str()), ("ext4", "/dev/vda1"));
        assert_eq!(root.mount_options, ["rw", "relatime", "errors=remount-ro", "nobarrier"]);
        assert!(root.is_without_barriers());
        assert_eq!(root.nature(), Nature::Local);
        let memory = place("/srv/my data/x", (0, 31));
        assert_eq!((memory.nature(), memory.mount_point), (Nature::Memory, PathBuf::from("/srv/my data")));
        // A path that only begins like it is elsewhere.
        assert_eq!(place("/srv/my data2", (254, 0)).file_system, "ext4");
        // No mount names the device of a btrfs subvolume.
        assert_eq!(place("/data/log", (0, 99)).file_system, "btrfs");
        assert_eq!(place("/data/far/log", (0, 41)).nature(), Nature::Network);
        assert_eq!(place("/data/far/log", (0, 42)).nature(), Nature::Layers);
        // The later of two on one path is what is seen.
        assert_eq!(place("/data/far/log", (9, 9)).file_system, "overlay");
        assert_eq!(place_in("", Path::new("/x"), (0, 0)), None);
    }

    #[test]
    fn a_real_directory_has_a_place() {
        let place = Place::of(Path::new(".")).unwrap();
        assert!(place.dir.is_absolute() && place.total_bytes >= place.free_bytes && place.total_bytes > 0);
        assert!(Place::of(Path::new("no/such/directory")).is_err());
    }

    #[test]
    fn odd_words_are_kept() {
        assert_eq!(unescaped("a\\040b\\011c"), "a b\tc");
        assert_eq!(unescaped("a\\9b\\"), "a\\9b\\");
        assert_eq!(unescaped("\\04"), "\\04");
    }
}
