//! From one instant to the disks that a power cut at that instant could leave.

use std::path::PathBuf;
use std::sync::Arc;

use super::SimDisk;
use super::content::{Content, garbage};
use super::fault::Call;
use super::state::{DirChange, DirOp, FileState, Piece, State};
use crate::base::Rng;

/// Tears are tried at borders of this size (what a processor writes at once) and at [`SECTOR_BYTES`].
const WORD_BYTES: usize = 8;
const SECTOR_BYTES: usize = 512;
/// More pending pieces than this, and the single and prefix subsets are a sample.
const ENUMERATED_MAX: usize = 48;

/// The disk at one instant.
#[derive(Clone, Debug)]
pub struct Point {
    /// Operations complete by now ([`SimDisk::op_count`]).
    pub op: u64,
    /// The operation about to begin; None at the end of a recording.
    pub next: Option<(Call, PathBuf)>,
    pub(super) state: State,
}

/// What may happen to one pending piece. The last five mean [`Fate::Whole`] for anything but a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lost,
    Whole,
    /// Only the first so many bytes of the write survive.
    Head(usize),
    /// Only the bytes from there on survive.
    Tail(usize),
    /// Each 512-byte sector of the file that the write touches survives or not, by the seed.
    Sectors(u64),
    /// The write's bytes become garbage made from the seed.
    Garbage(u64),
    /// All sectors that the write touches become garbage, with older synced bytes in them: a medium
    /// without power-safe overwrite. Never chosen by [`Point::survivors`].
    Shred(u64),
}

/// How cruel the file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Every pending piece for itself, in any combination, torn or garbled.
    PosixWorst,
    /// Changes of size and of directories survive in order, as a journal has them; a size only with the data
    /// before it, a rename only with the data of its file. Data in place as in `PosixWorst`, without garbage.
    Ext4Ordered,
    /// What survives is a prefix of everything in order; its last write may be cut.
    Prefix,
}

/// A pending piece, for tests that choose fates themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub path: PathBuf,
    pub kind: PendingKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingKind {
    Write { offset: u64, len: usize },
    Size { len_bytes: u64 },
    Create,
    Rename,
    Remove,
}

/// One fate for each of [`Point::pending`], in that order, and a line that says which they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors {
    pub label: String,
    pub fates: Vec<Fate>,
}

/// A pending piece in the order of the whole disk.
enum Item<'a> {
    File(usize, &'a FileState, &'a Piece),
    Dir(&'a DirOp),
}

impl Item<'_> {
    fn write(&self) -> Option<(u64, usize)> {
        match self {
            Item::File(_, _, Piece::Bytes { offset, bytes }) => Some((*offset, bytes.len())),
            _ => None,
        }
    }

    fn describe(&self) -> Pending {
        let (path, kind) = match self {
            Item::File(_, file, piece) => {
                let kind = match piece {
                    Piece::Bytes { offset, bytes } => {
                        PendingKind::Write { offset: *offset, len: bytes.len() }
                    }
                    Piece::Grow { len_bytes } | Piece::SetLen { len_bytes } => {
                        PendingKind::Size { len_bytes: *len_bytes }
                    }
                };
                (&file.path, kind)
            }
            Item::Dir(op) => match &op.change {
                DirChange::Create { path, .. } => (path, PendingKind::Create),
                DirChange::Rename { to, .. } => (to, PendingKind::Rename),
                DirChange::Remove { path } => (path, PendingKind::Remove),
            },
        };
        Pending { path: path.clone(), kind }
    }
}

impl Point {
    fn items(&self) -> Vec<Item<'_>> {
        let mut items: Vec<(u64, Item<'_>)> = Vec::new();
        for (no, file) in self.state.files.iter().enumerate() {
            items.extend(file.pending.iter().map(|(seq, piece)| (*seq, Item::File(no, file, piece))));
        }
        items.extend(self.state.pending_dir.iter().map(|op| (op.seq, Item::Dir(op))));
        items.sort_unstable_by_key(|(seq, _)| *seq);
        items.into_iter().map(|(_, item)| item).collect()
    }

    /// What a power cut could take, in the order in which it was done.
    pub fn pending(&self) -> Vec<Pending> {
        self.items().iter().map(Item::describe).collect()
    }

    /// The disk that a new process finds after only the old one has died: all as written, nothing durable
    /// that was not before.
    pub fn kill_image(&self) -> SimDisk {
        let mut state = self.state.clone();
        for file in &mut state.files {
            if file.sync_failed {
                Arc::make_mut(file).sync_failed = false;
            }
        }
        SimDisk::from_state(state)
    }

    /// Whether the medium has, or is about to get, what reads see: no write went astray that has not been made good
    /// since.
    pub fn is_as_read(&self) -> bool {
        self.state.names.values().all(|no| {
            let mut medium = FileState::clone(&self.state.files[*no]);
            medium.drop_cache();
            medium.written.reads_as(&self.state.files[*no].written)
        })
    }

    /// The disk after a power cut with these survivors; everything on it is durable.
    pub fn image(&self, survivors: &Survivors) -> SimDisk {
        let items = self.items();
        assert_eq!(items.len(), survivors.fates.len(), "one fate for each pending piece");
        let mut contents: Vec<Content> = self.state.files.iter().map(|f| f.durable.clone()).collect();
        let mut names = self.state.durable_names.clone();
        for (item, fate) in items.iter().zip(&survivors.fates) {
            match item {
                _ if *fate == Fate::Lost => {}
                Item::File(no, _, Piece::Bytes { offset, bytes }) => {
                    write_partly(&mut contents[*no], *offset, bytes, *fate);
                }
                Item::File(no, _, piece) => piece.apply(&mut contents[*no]),
                Item::Dir(op) => op.change.apply(&mut names),
            }
        }
        let mut state = State { dirs: self.state.dirs.clone(), ..State::default() };
        for (path, no) in names {
            let mut content = std::mem::take(&mut contents[no]);
            content.trim();
            let new = state.new_file(&path);
            let file = state.file_mut(new);
            file.written = content.clone();
            file.durable = content;
            state.names.insert(path.clone(), new);
            state.durable_names.insert(path, new);
        }
        SimDisk::from_state(state)
    }

    /// The interesting subsets: nothing; everything; every prefix; each piece alone missing and alone
    /// present; tears, garbage and sector subsets of the last writes; and `random` subsets from `seed`. Legal
    /// under `profile`, without repetitions.
    pub fn survivors(&self, profile: Profile, seed: u64, random: usize) -> Vec<Survivors> {
        let items = self.items();
        let n = items.len();
        let mut rng = Rng::new(seed ^ self.op);
        let mut list = Enumeration { profile, items: &items, found: Vec::new() };
        list.add("none".into(), vec![Fate::Lost; n]);
        list.add("all".into(), vec![Fate::Whole; n]);
        for i in sample(n, &mut rng) {
            let each =
                |yes: Fate, no: Fate| (0..n).map(|k| if k == i { yes } else { no }).collect::<Vec<_>>();
            let prefix = (0..n).map(|k| if k < i { Fate::Whole } else { Fate::Lost }).collect();
            list.add(format!("first {i}"), prefix);
            list.add(format!("all but {i}"), each(Fate::Lost, Fate::Whole));
            list.add(format!("only {i}"), each(Fate::Whole, Fate::Lost));
        }
        list.add_tears(&mut rng);
        for k in 0..random {
            let fates = items.iter().map(|item| random_fate(item, &mut rng)).collect();
            list.add(format!("random {k}"), fates);
        }
        list.found
    }

    /// One of all legal survivors, drawn by the dice.
    pub fn random_survivors(&self, profile: Profile, rng: &mut Rng) -> Survivors {
        let items = self.items();
        let fates = items.iter().map(|item| random_fate(item, rng)).collect();
        let mut list = Enumeration { profile, items: &items, found: Vec::new() };
        list.add("random".into(), fates);
        list.found.remove(0)
    }

    /// Everything that is pending shares one fate.
    pub fn uniform_survivors(&self, fate: Fate) -> Survivors {
        Survivors { label: format!("{fate:?}"), fates: vec![fate; self.items().len()] }
    }

    /// [`Point::survivors`] as disks, with a line that says which point and which survivors made them.
    pub fn crash_images(
        &self,
        profile: Profile,
        seed: u64,
        random: usize,
    ) -> impl Iterator<Item = (String, SimDisk)> + '_ {
        self.survivors(profile, seed, random).into_iter().map(move |s| {
            let label = format!("op {} (before {:?}), {}: {:?}", self.op, self.next, s.label, s.fates);
            (label, self.image(&s))
        })
    }
}

/// Collects fates: makes them legal, drops what is there already.
struct Enumeration<'a> {
    profile: Profile,
    items: &'a [Item<'a>],
    found: Vec<Survivors>,
}

impl Enumeration<'_> {
    fn add(&mut self, label: String, mut fates: Vec<Fate>) {
        for (item, fate) in self.items.iter().zip(&mut fates) {
            if item.write().is_none() && *fate != Fate::Lost {
                *fate = Fate::Whole;
            }
        }
        match self.profile {
            Profile::PosixWorst => {}
            Profile::Ext4Ordered => ordered(self.items, &mut fates),
            Profile::Prefix => prefix(&mut fates),
        }
        if !self.found.iter().any(|s| s.fates == fates) {
            self.found.push(Survivors { label, fates });
        }
    }

    /// The last three writes torn, with all before them whole and all behind them lost, and with all else whole.
    fn add_tears(&mut self, rng: &mut Rng) {
        let writes: Vec<usize> = (0..self.items.len()).filter(|i| self.items[*i].write().is_some()).collect();
        for &i in writes.iter().rev().take(3) {
            let (offset, len) = self.items[i].write().expect("it is a write");
            let mut fates: Vec<Fate> = Vec::new();
            for border in borders(offset, len, rng) {
                fates.extend([Fate::Head(border), Fate::Tail(border)]);
            }
            fates.extend([Fate::Garbage(rng.next_u64()), Fate::Sectors(rng.next_u64())]);
            for fate in fates {
                for behind in [Fate::Lost, Fate::Whole] {
                    let mut all = vec![Fate::Whole; self.items.len()];
                    all[i] = fate;
                    all[i + 1..].fill(behind);
                    self.add(format!("write {i} torn, the rest behind it {behind:?}"), all);
                }
            }
        }
    }
}

fn random_fate(item: &Item<'_>, rng: &mut Rng) -> Fate {
    let len = item.write().map_or(0, |(_, len)| len as u64);
    match rng.below(10) {
        0..=3 => Fate::Lost,
        4..=6 => Fate::Whole,
        _ if len == 0 => Fate::Whole,
        7 => Fate::Sectors(rng.next_u64()),
        8 if rng.one_in(2) => Fate::Head(rng.below(len) as usize / WORD_BYTES * WORD_BYTES),
        8 => Fate::Tail(rng.below(len) as usize / WORD_BYTES * WORD_BYTES),
        _ => Fate::Garbage(rng.next_u64()),
    }
}

/// Numbers up to `n`, all of them or a sorted sample.
fn sample(n: usize, rng: &mut Rng) -> Vec<usize> {
    if n <= ENUMERATED_MAX {
        return (0..n).collect();
    }
    let mut picked: Vec<usize> = (0..ENUMERATED_MAX).map(|_| rng.below(n as u64) as usize).collect();
    picked.extend([0, 1, n - 2, n - 1]);
    picked.sort_unstable();
    picked.dedup();
    picked
}

/// Where a write could tear, as lengths of its first part: up to eight sector borders, and word borders at
/// both ends and somewhere in between. Borders are those of the file, not of the write.
fn borders(offset: u64, len: usize, rng: &mut Rng) -> Vec<usize> {
    let first = |unit: usize| (unit - (offset % unit as u64) as usize) % unit;
    let inside = |at: usize| at > 0 && at < len;
    let sectors: Vec<usize> =
        (first(SECTOR_BYTES)..len).step_by(SECTOR_BYTES).filter(|at| inside(*at)).collect();
    let words: Vec<usize> = (first(WORD_BYTES)..len).step_by(WORD_BYTES).filter(|at| inside(*at)).collect();
    let mut found = Vec::new();
    for (all, wanted) in [(sectors, 8), (words, 6)] {
        if all.len() <= wanted {
            found.extend(all);
            continue;
        }
        found.extend([all[0], all[1], all[all.len() - 1]]);
        found.extend((3..wanted).map(|_| all[rng.below(all.len() as u64) as usize]));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Once one is lost, or not whole, all behind it are lost.
fn prefix(fates: &mut [Fate]) {
    for fate in fates.iter_mut() {
        // What tears at the end of a prefix is its own end.
        *fate = match *fate {
            Fate::Tail(at) => Fate::Head(at),
            Fate::Garbage(_) | Fate::Shred(_) | Fate::Sectors(_) => Fate::Lost,
            other => other,
        };
    }
    if let Some(end) = fates.iter().position(|f| *f != Fate::Whole) {
        fates[end + 1..].fill(Fate::Lost);
    }
}

/// A journal keeps changes of size and names in order, and has the data that they stand for written first.
fn ordered(items: &[Item<'_>], fates: &mut [Fate]) {
    let mut journal_ends = false;
    let mut needed: Vec<(usize, usize)> = Vec::new(); // (file, all its writes before this item)
    for (i, item) in items.iter().enumerate() {
        if item.write().is_some() {
            if matches!(fates[i], Fate::Garbage(_)) {
                fates[i] = Fate::Lost;
            }
            continue;
        }
        journal_ends |= fates[i] == Fate::Lost;
        if journal_ends {
            fates[i] = Fate::Lost;
            continue;
        }
        match item {
            // The bytes that made the file grow stand right behind the size in this list.
            Item::File(no, _, Piece::Grow { .. }) => needed.push((*no, i + 2)),
            Item::File(no, _, _) => needed.push((*no, i)),
            Item::Dir(DirOp { change: DirChange::Rename { file, .. }, .. }) => needed.push((*file, i)),
            Item::Dir(_) => {}
        }
    }
    for (file, end) in needed {
        for (i, item) in items.iter().enumerate().take(end) {
            if item.write().is_some() && matches!(item, Item::File(no, ..) if *no == file) {
                fates[i] = Fate::Whole;
            }
        }
    }
}

fn write_partly(content: &mut Content, offset: u64, bytes: &[u8], fate: Fate) {
    let len = bytes.len();
    match fate {
        Fate::Lost => {}
        Fate::Whole => content.write(offset, bytes),
        Fate::Head(n) => content.write(offset, &bytes[..n.min(len)]),
        Fate::Tail(n) => content.write(offset + n.min(len) as u64, &bytes[n.min(len)..]),
        Fate::Garbage(seed) => content.write(offset, &garbage(seed, len)),
        Fate::Sectors(seed) => {
            let mut rng = Rng::new(seed);
            let mut at = 0;
            while at < len {
                let to_border = SECTOR_BYTES - ((offset + at as u64) % SECTOR_BYTES as u64) as usize;
                let step = to_border.min(len - at);
                if rng.one_in(2) {
                    content.write(offset + at as u64, &bytes[at..at + step]);
                }
                at += step;
            }
        }
        Fate::Shred(seed) => {
            let sector = SECTOR_BYTES as u64;
            let start = offset / sector * sector;
            let end = (offset + len as u64).next_multiple_of(sector);
            content.write(start, &garbage(seed, (end - start) as usize));
        }
    }
}
