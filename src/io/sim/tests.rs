use super::*;
use crate::io::{Clock, Entropy};

fn p(path: &str) -> PathBuf {
    PathBuf::from(path)
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(&p("d")).unwrap();
    disk
}

/// A file whose name and first bytes are durable.
fn durable_file(disk: &SimDisk, path: &str, bytes: &[u8]) -> SimFile {
    disk.put(&p(path), bytes);
    disk.open(&p(path), Open::Write).unwrap()
}

fn cut(disk: &SimDisk, fates: &[Fate]) -> SimDisk {
    disk.point().image(&Survivors { label: String::new(), fates: fates.to_vec() })
}

fn images(disk: &SimDisk, profile: Profile) -> Vec<(String, SimDisk)> {
    disk.point().crash_images(profile, 1, 50).collect()
}

use Fate::{Lost, Whole};

#[test]
fn reads_see_what_is_written_and_a_power_cut_takes_what_is_not_synced() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", b"old");
    file.write_at(0, b"new!").unwrap();
    assert_eq!(disk.bytes(&p("d/a")).unwrap(), b"new!");
    let mut buf = [0; 8];
    assert_eq!(file.read_at(1, &mut buf).unwrap(), 3);
    assert_eq!(&buf[..3], b"ew!");
    let kinds: Vec<PendingKind> = disk.point().pending().into_iter().map(|i| i.kind).collect();
    assert_eq!(kinds, [PendingKind::Size { len_bytes: 4 }, PendingKind::Write { offset: 0, len: 4 }]);
    for (fates, left) in [
        ([Lost, Lost], &b"old"[..]),
        ([Whole, Whole], b"new!"),
        ([Lost, Whole], b"new"),
        ([Whole, Lost], b"old\0"),
        ([Whole, Fate::Head(2)], b"ned\0"),
        ([Whole, Fate::Tail(2)], b"olw!"),
    ] {
        assert_eq!(cut(&disk, &fates).bytes(&p("d/a")).unwrap(), left, "{fates:?}");
    }
    file.sync_data().unwrap();
    assert_eq!(cut(&disk, &[]).bytes(&p("d/a")).unwrap(), b"new!");
}

#[test]
fn a_cut_file_does_not_show_old_bytes_when_it_grows_again() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", &[7; 5_000]);
    file.set_len(10).unwrap();
    file.set_len(5_000).unwrap();
    let left = disk.bytes(&p("d/a")).unwrap();
    assert!(left[..10].iter().all(|b| *b == 7) && left[10..].iter().all(|b| *b == 0));
    assert_eq!(cut(&disk, &[Lost, Lost]).bytes(&p("d/a")).unwrap(), [7; 5_000]);
    assert_eq!(cut(&disk, &[Whole, Lost]).bytes(&p("d/a")).unwrap(), [7; 10]);
}

#[test]
fn names_live_and_die_by_the_directory_not_by_the_file() {
    let disk = disk();
    let file = disk.open(&p("d/new"), Open::Create).unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync_data().unwrap();
    assert_eq!(cut(&disk, &[Lost]).list(&p("d")).unwrap(), [] as [&str; 0]);
    assert_eq!(cut(&disk, &[Whole]).bytes(&p("d/new")).unwrap(), b"x");
    disk.sync_dir(&p("d")).unwrap();
    disk.rename(&p("d/new"), &p("d/final")).unwrap();
    assert_eq!(disk.list(&p("d")).unwrap(), ["final"]);
    assert_eq!(cut(&disk, &[Lost]).list(&p("d")).unwrap(), ["new"]);
    disk.remove(&p("d/final")).unwrap();
    assert_eq!(cut(&disk, &[Whole, Lost]).list(&p("d")).unwrap(), ["final"]);
    assert_eq!(cut(&disk, &[Lost, Whole]).list(&p("d")).unwrap(), ["new"], "one survives without the other");
    disk.sync_dir(&p("d")).unwrap();
    assert_eq!(cut(&disk, &[]).list(&p("d")).unwrap(), [] as [&str; 0]);
}

#[test]
fn a_rename_across_directories_waits_for_both() {
    let disk = disk();
    disk.create_dir_all(&p("e")).unwrap();
    durable_file(&disk, "d/a", b"x");
    disk.rename(&p("d/a"), &p("e/a")).unwrap();
    disk.sync_dir(&p("e")).unwrap();
    assert_eq!(disk.point().pending().len(), 1);
    disk.sync_dir(&p("d")).unwrap();
    assert_eq!(cut(&disk, &[]).files(), [(p("e/a"), 1)]);
}

#[test]
fn a_kill_keeps_the_page_cache_and_a_later_power_cut_takes_it() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", b"old");
    let _held = disk.lock(&p("d/lock")).unwrap();
    file.write_at(0, b"new").unwrap();
    let after_kill = disk.point().kill_image();
    assert_eq!(after_kill.bytes(&p("d/a")).unwrap(), b"new");
    after_kill.lock(&p("d/lock")).unwrap();
    let none = after_kill.point().survivors(Profile::PosixWorst, 0, 0).remove(0);
    assert_eq!(after_kill.point().image(&none).bytes(&p("d/a")).unwrap(), b"old");
}

#[test]
fn a_failed_sync_has_linux_semantics() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", b"old");
    disk.fail(Fault::once(Call::Sync, "d/a"));
    file.write_at(0, b"new").unwrap();
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(disk.bytes(&p("d/a")).unwrap(), b"new", "the cache keeps the new bytes");
    assert_eq!(disk.syncs_after_failure(), 0);
    file.sync_data().unwrap();
    assert_eq!(disk.syncs_after_failure(), 1);
    assert_eq!(cut(&disk, &[]).bytes(&p("d/a")).unwrap(), b"old", "Ok, and yet lost");
    disk.evict_clean();
    assert_eq!(disk.bytes(&p("d/a")).unwrap(), b"old");
}

#[test]
fn a_disk_that_lies_about_syncs_loses_synced_bytes() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", b"old");
    disk.lie_about_syncs("d/a");
    file.write_at(0, b"new").unwrap();
    file.sync_data().unwrap();
    assert_eq!(cut(&disk, &[Lost]).bytes(&p("d/a")).unwrap(), b"old");
}

#[test]
fn the_nth_call_fails_with_the_wanted_error() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", b"....");
    disk.fail(Fault::once(Call::Write, "a").after(1).errno(EROFS));
    disk.fail(Fault::once(Call::Read, "").for_ever());
    disk.fail(Fault::once(Call::SyncDir, ""));
    file.write_at(0, b"12").unwrap();
    assert_eq!(file.write_at(0, b"abcd").unwrap_err().raw_os_error(), Some(EROFS));
    file.write_at(3, b"!").unwrap();
    assert_eq!(disk.bytes(&p("d/a")).unwrap(), b"ab.!", "half of the failed write is there");
    for _ in 0..3 {
        assert_eq!(file.read_at(0, &mut [0]).unwrap_err().raw_os_error(), Some(EIO));
    }
    assert!(disk.sync_dir(&p("d")).is_err());
    disk.heal();
    disk.sync_dir(&p("d")).unwrap();
    file.read_at(0, &mut [0]).unwrap();
}

#[test]
fn space_runs_out_and_comes_back() {
    let disk = disk();
    disk.set_capacity(Some(3 * 4_096));
    let file = disk.open(&p("d/a"), Open::Create).unwrap();
    file.allocate(0, 2 * 4_096).unwrap();
    assert_eq!(file.len_bytes().unwrap(), 2 * 4_096);
    assert_eq!(disk.free_bytes(&p("d")).unwrap(), 4_096);
    let full = file.write_at(4_096, &[1; 3 * 4_096]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(ENOSPC));
    file.write_at(0, &[1; 2 * 4_096]).unwrap();
    file.set_len(1 << 30).unwrap();
    assert_eq!(disk.free_bytes(&p("d")).unwrap(), 4_096, "a hole takes no room");
    disk.remove(&p("d/a")).unwrap();
    assert_eq!(disk.free_bytes(&p("d")).unwrap(), 3 * 4_096);
}

#[test]
fn a_stopped_machine_leaves_no_trace() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", b"0");
    disk.stop_at(disk.op_count() + 1);
    file.write_at(0, b"1").unwrap();
    assert!(file.sync_data().is_err());
    assert!(file.write_at(0, b"2").is_err());
    assert!(file.read_at(0, &mut [0]).is_err());
    let image = disk.point().kill_image();
    assert_eq!(image.bytes(&p("d/a")).unwrap(), b"1");
    assert_eq!(cut(&disk, &[Lost]).bytes(&p("d/a")).unwrap(), b"0");
    assert_eq!(disk.syncs_after_failure(), 0);
}

#[test]
fn damage_at_rest_hits_every_copy() {
    let disk = disk();
    durable_file(&disk, "d/a", b"abcdefgh");
    disk.damage(&p("d/a"), 0, Damage::Flip { bit: 1 }).unwrap();
    disk.damage(&p("d/a"), 1, Damage::Zero { len: 2 }).unwrap();
    disk.damage(&p("d/a"), 4, Damage::Copy { from: 6, len: 2 }).unwrap();
    disk.damage(&p("d/a"), 7, Damage::Garbage { len: 9, seed: 4 }).unwrap();
    let seen = disk.bytes(&p("d/a")).unwrap();
    assert_eq!(&seen[..7], b"c\0\0dghg");
    assert_eq!(seen.len(), 8, "damage does not make a file longer");
    assert_eq!(cut(&disk, &[]).bytes(&p("d/a")).unwrap(), seen);
    assert!(disk.damage(&p("d/none"), 0, Damage::Flip { bit: 0 }).is_err());
}

#[test]
fn a_mapping_shows_the_written_bytes_and_ends_where_it_was_told() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", &[1; 10_000]);
    assert!(disk.map(&file, 10_001).is_err());
    let mut pages = disk.map(&file, 9_000).unwrap();
    file.write_at(4_090, b"0123456789").unwrap();
    assert_eq!(&pages.bytes(4_090, 10).unwrap()[..], b"0123456789");
    assert!(pages.bytes(8_999, 2).is_none() && pages.bytes(u64::MAX, 2).is_none());
    pages.set_len(10_000).unwrap();
    assert_eq!(pages.bytes(8_999, 2).unwrap().len(), 2);
}

#[test]
#[should_panic(expected = "SIGBUS")]
fn looking_behind_the_end_of_a_shrunk_file_is_a_sigbus() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", &[1; 10_000]);
    let pages = disk.map(&file, 10_000).unwrap();
    file.set_len(4_096).unwrap();
    let _ = pages.bytes(0, 10_000);
}

/// The subsets of two writes to one synced file: exactly the images that can be thought of, and no other.
#[test]
fn survivors_cover_every_combination_of_two_small_writes() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", b"........");
    file.write_at(0, b"11").unwrap();
    file.write_at(4, b"22").unwrap();
    let seen: BTreeSet<Vec<u8>> =
        images(&disk, Profile::PosixWorst).iter().map(|(_, d)| d.bytes(&p("d/a")).unwrap()).collect();
    for wanted in [b"........", b"11......", b"....22..", b"11..22.."] {
        assert!(seen.contains(&wanted[..]), "missing {wanted:?}");
    }
    let seen: BTreeSet<Vec<u8>> =
        images(&disk, Profile::Prefix).iter().map(|(_, d)| d.bytes(&p("d/a")).unwrap()).collect();
    let whole: BTreeSet<Vec<u8>> =
        [b"........", b"11......", b"11..22.."].iter().map(|b| b.to_vec()).collect();
    assert_eq!(seen, whole, "a prefix never has the second without the first");
}

#[test]
fn a_torn_write_tears_at_the_borders_of_the_file() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", &[0; 2_048]);
    file.write_at(100, &[1; 1_000]).unwrap();
    let heads: BTreeSet<usize> = images(&disk, Profile::PosixWorst)
        .iter()
        .map(|(_, d)| d.bytes(&p("d/a")).unwrap())
        .filter(|bytes| bytes[100] == 1 && bytes.iter().all(|b| *b < 2))
        .map(|bytes| bytes.iter().skip(100).take_while(|b| **b == 1).count())
        .collect();
    for border in [512, 1_024, 104, 1_096] {
        assert!(heads.contains(&(border - 100)), "no tear at {border}: {heads:?}");
    }
}

#[test]
fn the_ordered_profile_keeps_the_promises_of_a_journal() {
    let disk = disk();
    durable_file(&disk, "d/a", b"old");
    let tmp = disk.open(&p("d/tmp"), Open::Create).unwrap();
    tmp.write_at(0, b"new-").unwrap();
    tmp.write_at(4, b"data").unwrap();
    disk.rename(&p("d/tmp"), &p("d/a")).unwrap();
    let bytes_of = |profile| -> BTreeSet<Vec<u8>> {
        images(&disk, profile).iter().filter_map(|(_, d)| d.bytes(&p("d/a")).ok()).collect()
    };
    let ordered = bytes_of(Profile::Ext4Ordered);
    assert_eq!(ordered, [b"new-data".to_vec(), b"old".to_vec()].into_iter().collect());
    let worst = bytes_of(Profile::PosixWorst);
    assert!(worst.contains(&vec![]) && worst.contains(&b"new-\0\0\0\0"[..]), "rename before content");
}

/// The protocol that every careful program uses to replace a file, through all its crash points; and the
/// same without the sync, which must be caught.
#[test]
fn crash_points_pass_a_careful_rename_and_catch_a_careless_one() {
    let run = |careful: bool| -> usize {
        let disk = disk();
        durable_file(&disk, "d/a", b"old");
        disk.record();
        let tmp = disk.open(&p("d/tmp"), Open::Create).unwrap();
        tmp.write_at(0, &[b'n'; 700]).unwrap();
        if careful {
            tmp.sync_data().unwrap();
        }
        disk.rename(&p("d/tmp"), &p("d/a")).unwrap();
        disk.sync_dir(&p("d")).unwrap();
        let acked_at = disk.op_count();
        let mut wrong = 0;
        for point in disk.points() {
            for (_, image) in point.crash_images(Profile::PosixWorst, 5, 20) {
                let left = image.bytes(&p("d/a")).unwrap_or_default();
                let new = left == [b'n'; 700];
                wrong += usize::from(!(new || left == b"old" && point.op < acked_at));
            }
        }
        wrong
    };
    assert_eq!(run(true), 0);
    assert!(run(false) > 0);
}

#[test]
fn images_are_the_same_for_the_same_seed_and_do_not_touch_the_disk() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", &[0; 600]);
    for i in 0..60 {
        file.write_at(i * 10, &[i as u8; 10]).unwrap();
    }
    let before = disk.bytes(&p("d/a")).unwrap();
    let all = |seed| -> Vec<Vec<u8>> {
        let point = disk.point();
        point.crash_images(Profile::PosixWorst, seed, 30).map(|(_, d)| d.bytes(&p("d/a")).unwrap()).collect()
    };
    assert_eq!(all(1), all(1));
    assert_ne!(all(1), all(2));
    let (_, image) = disk.point().crash_images(Profile::PosixWorst, 1, 0).next().unwrap();
    image.open(&p("d/a"), Open::Write).unwrap().write_at(0, b"elsewhere").unwrap();
    assert_eq!(disk.bytes(&p("d/a")).unwrap(), before);
}

#[test]
fn shredded_sectors_take_synced_neighbours_with_them() {
    let disk = disk();
    let file = durable_file(&disk, "d/a", &[7; 1_536]);
    file.write_at(600, b"x").unwrap();
    let left = cut(&disk, &[Fate::Shred(1)]).bytes(&p("d/a")).unwrap();
    assert!(left[..512].iter().chain(&left[1_024..]).all(|b| *b == 7));
    assert!(left[512..600].iter().any(|b| *b != 7));
}

#[test]
fn mistakes_of_the_caller_are_errors() {
    let disk = disk();
    durable_file(&disk, "d/a", b"x");
    assert_eq!(disk.open(&p("d/a"), Open::Create).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.open(&p("d/b"), Open::Read).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.open(&p("no/b"), Open::Create).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(disk.list(&p("no")).is_err());
    let read_only = disk.open(&p("d/a"), Open::Read).unwrap();
    assert_eq!(read_only.write_at(0, b"y").unwrap_err().raw_os_error(), Some(EBADF));
    assert_eq!(disk.bytes(&p("d/a")).unwrap(), b"x");
    let file = disk.open(&p("d/a"), Open::Write).unwrap();
    assert_eq!(file.write_at(u64::MAX, b"y").unwrap_err().raw_os_error(), Some(EFBIG));
    let _held = disk.lock(&p("d/lock")).unwrap();
    assert_eq!(disk.lock(&p("d/lock")).err().map(|e| e.kind()), Some(ErrorKind::WouldBlock));
}

#[test]
fn the_clock_moves_by_hand_and_seeds_repeat() {
    let clock = SimClock::default();
    let before = (clock.now(), clock.wall_ms());
    clock.clone().advance(5_000_000);
    assert_eq!((clock.now().since(before.0), clock.wall_ms() - before.1), (5_000_000, 5));
    assert_eq!(SimEntropy::new(1).seed(), SimEntropy::new(1).seed());
}
