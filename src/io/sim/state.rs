//! What a disk holds: for every file the bytes as written and the bytes as durable, and between the two the
//! pieces that a power cut may take or leave. The same for the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::Content;

/// Position of a file in [`State::files`]; a file keeps it through renames.
pub(super) type FileNo = usize;

/// The smallest thing that survives a power cut by itself (a write can also survive in part). One call makes
/// one or two: an extending write is bytes and a size.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Bytes {
        offset: u64,
        bytes: Arc<[u8]>,
    },
    /// The file is at least this long.
    Grow {
        len_bytes: u64,
    },
    /// The file is exactly this long.
    SetLen {
        len_bytes: u64,
    },
}

#[derive(Clone, Debug)]
pub(super) struct FileState {
    /// Where the file is now, or was last: for fault rules and messages.
    pub(super) path: PathBuf,
    /// What reads and mappings see: the page cache.
    pub(super) written: Content,
    /// What the medium holds for certain.
    pub(super) durable: Content,
    /// In order; the number orders them among all pending things of the disk.
    pub(super) pending: Vec<(u64, Piece)>,
    /// A sync of this file has failed since the process started.
    pub(super) sync_failed: bool,
}

#[derive(Clone, Debug)]
pub(super) enum DirChange {
    Create { path: PathBuf, file: FileNo },
    Rename { from: PathBuf, to: PathBuf, file: FileNo },
    Remove { path: PathBuf },
}

#[derive(Clone, Debug)]
pub(super) struct DirOp {
    pub(super) seq: u64,
    pub(super) change: DirChange,
    /// The directories that must still be synced before the change is durable.
    pub(super) waits_for: Vec<PathBuf>,
}

/// Everything that a disk is. A clone shares all bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) files: Vec<Arc<FileState>>,
    pub(super) names: BTreeMap<PathBuf, FileNo>,
    pub(super) durable_names: BTreeMap<PathBuf, FileNo>,
    pub(super) pending_dir: Vec<DirOp>,
    /// Directories are durable at once: `create_dir_all` syncs them.
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) next_seq: u64,
}

impl Piece {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Piece::Bytes { offset, bytes } => content.write(*offset, bytes),
            Piece::Grow { len_bytes } => content.grow(*len_bytes),
            Piece::SetLen { len_bytes } => content.set_len(*len_bytes),
        }
    }
}

impl FileState {
    /// Reads see what is durable, and what still waits to be written.
    pub(super) fn drop_cache(&mut self) {
        self.written = self.durable.clone();
        for (_, piece) in &self.pending {
            piece.apply(&mut self.written);
        }
    }
}

impl DirChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, FileNo>) {
        match self {
            DirChange::Create { path, file } => {
                names.insert(path.clone(), *file);
            }
            DirChange::Rename { from, to, file } => {
                // `from` may have become another file's name since, where only a part survived.
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            DirChange::Remove { path } => {
                names.remove(path);
            }
        }
    }
}

pub(super) fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_path_buf()
}

impl State {
    pub(super) fn file_mut(&mut self, no: FileNo) -> &mut FileState {
        Arc::make_mut(&mut self.files[no])
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.names.values().map(|no| self.files[*no].written.used_bytes()).sum()
    }

    fn seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    fn add_piece(&mut self, no: FileNo, piece: Piece) {
        let seq = self.seq();
        let file = self.file_mut(no);
        piece.apply(&mut file.written);
        file.pending.push((seq, piece));
    }

    /// The size change stands before the bytes: one may survive without the other, in either way.
    pub(super) fn write(&mut self, no: FileNo, offset: u64, bytes: &[u8]) {
        self.grow(no, offset + bytes.len() as u64);
        self.add_piece(no, Piece::Bytes { offset, bytes: bytes.into() });
    }

    /// Reads see the bytes where they belong; the medium gets them elsewhere, or nowhere.
    pub(super) fn write_astray(&mut self, no: FileNo, offset: u64, bytes: &[u8], elsewhere: Option<u64>) {
        self.grow(no, offset + bytes.len() as u64);
        let seq = self.seq();
        let file = self.file_mut(no);
        file.written.write(offset, bytes);
        if let Some(offset) = elsewhere {
            file.pending.push((seq, Piece::Bytes { offset, bytes: bytes.into() }));
        }
    }

    pub(super) fn grow(&mut self, no: FileNo, len_bytes: u64) {
        if len_bytes > self.files[no].written.len_bytes() {
            self.add_piece(no, Piece::Grow { len_bytes });
        }
    }

    pub(super) fn set_len(&mut self, no: FileNo, len_bytes: u64) {
        if len_bytes != self.files[no].written.len_bytes() {
            self.add_piece(no, Piece::SetLen { len_bytes });
        }
    }

    pub(super) fn sync(&mut self, no: FileNo) {
        let file = self.file_mut(no);
        for (_, piece) in file.pending.drain(..) {
            piece.apply(&mut file.durable);
        }
    }

    pub(super) fn new_file(&mut self, path: &Path) -> FileNo {
        self.files.push(Arc::new(FileState {
            path: path.to_path_buf(),
            written: Content::default(),
            durable: Content::default(),
            pending: Vec::new(),
            sync_failed: false,
        }));
        self.files.len() - 1
    }

    pub(super) fn change_dir(&mut self, change: DirChange) {
        change.apply(&mut self.names);
        let waits_for = match &change {
            DirChange::Create { path, .. } | DirChange::Remove { path } => vec![parent(path)],
            DirChange::Rename { from, to, file } => {
                self.file_mut(*file).path = to.clone();
                let mut dirs = vec![parent(from), parent(to)];
                dirs.dedup();
                dirs
            }
        };
        let seq = self.seq();
        self.pending_dir.push(DirOp { seq, change, waits_for });
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let State { pending_dir, durable_names, .. } = self;
        pending_dir.retain_mut(|op| {
            op.waits_for.retain(|d| d != dir);
            if op.waits_for.is_empty() {
                op.change.apply(durable_names);
            }
            !op.waits_for.is_empty()
        });
    }
}
