//! Errors sorted by what the caller must do. Client-facing errors are another matter: see `api::Fault`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between this process and its files.
#[derive(Debug)]
pub enum Error {
    /// The operating system refused or failed. A failed write or sync of the log stops the node; it is
    /// never retried, because after a failed fsync nobody knows what the disk holds.
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// Bytes on disk are not what was written there. Never cut in silence, never served.
    Corrupt(Box<Corruption>),
    /// The files are sound but not for us: another cluster, another member, a newer format, in use.
    Refused(String),
}

/// Damage found: what, where, and what should have been there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    pub file: PathBuf,
    pub offset: u64,
    /// What was being read, for instance `segment header` or `page 17`.
    pub what: String,
    pub found: String,
    pub expected: String,
}

impl Error {
    pub fn io(doing: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { doing, path: path.to_path_buf(), source }
    }

    pub fn corrupt(
        file: &Path,
        offset: u64,
        what: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Error {
        Error::Corrupt(Box::new(Corruption {
            file: file.to_path_buf(),
            offset,
            what: what.into(),
            found: found.into(),
            expected: expected.into(),
        }))
    }

    /// True where there is no room: quota, full disk. The caller may refuse writes and go on reading.
    pub fn is_no_space(&self) -> bool {
        // ENOSPC, EDQUOT
        matches!(self, Error::Io { source, .. } if matches!(source.raw_os_error(), Some(28 | 122)))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { doing, path, source } => write!(f, "{doing} {}: {source}", path.display()),
            Error::Corrupt(c) => write!(f, "{c}"),
            Error::Refused(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Corruption { file, offset, what, found, expected } = self;
        write!(
            f,
            "{} is damaged at offset {offset}: {what}: found {found}, expected {expected}",
            file.display()
        )
    }
}

impl std::error::Error for Error {}
