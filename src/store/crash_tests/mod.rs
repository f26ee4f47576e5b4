//! Crashes and failures of the disk, over a simulated one: the power goes at every
//! write, sync, cut and commit, the n-th call fails for all n, also during recovery.
//! Every state is then opened and checked whole, see [`lines::check`].

#![allow(clippy::unwrap_used)]

mod costs;
mod embedded;
mod leftovers;
mod lines;
mod random;
mod restarts;
mod sequences;
mod sim;

use std::fs;
use std::path::{Path, PathBuf};

use super::Writer;
use super::backup::{index_path, with_suffix};
use lines::{Step, check, fast_dir, guid_of, history};
use random::Random;
use sim::{CutPoint, Failing, Image, Outcome, Promised, SimDisk};

const OUTCOMES: [Outcome; 7] = [
    Outcome::ProcessDies,
    Outcome::Lost,
    Outcome::Torn,
    Outcome::Torn,
    Outcome::Scattered,
    Outcome::Scattered,
    Outcome::Scattered,
];

/// Runs the history over a disk; calls that fail are answered as the server does it:
/// the writer is dropped, the line or the promise is not given. After each second session
/// the writer is only synced, and goes on.
fn live(disk: &SimDisk, path: &Path, sessions: &[Vec<Step>]) -> Vec<Step> {
    let mut now = 1_000;
    let mut stored = Vec::new();
    let mut promised = Promised::default();
    // Lines acknowledged through a writer that failed, until the next one takes them in.
    let mut are_unsettled = false;
    let mut writer: Option<Writer> = None;
    for (number, session) in sessions.iter().enumerate() {
        let mut is_in_doubt = false;
        for step in session {
            now += 1;
            if writer.is_none() {
                writer = Writer::open_on(Box::new(disk.clone()), path, now).ok();
                are_unsettled &= writer.is_none();
            }
            let Some(open) = &mut writer else { continue };
            match step.append_to(open, now) {
                Ok(()) => {
                    stored.push(step.clone());
                    promised.acknowledged = stored.len();
                    disk.promise(promised);
                }
                Err(_) => {
                    is_in_doubt |= open.has_unsynced();
                    are_unsettled = true;
                    assert!(open.finish(now).is_err() && open.finish(now).is_err());
                    assert!(step.append_to(open, now).is_err(), "failed once, failed for good");
                    writer = None;
                }
            }
        }
        let goes_on = number % 2 == 0 && number + 1 < sessions.len();
        let finished = match &mut writer {
            Some(writer) if goes_on => writer.sync(now),
            Some(writer) => writer.finish(now),
            None => Ok(()),
        };
        if !goes_on || finished.is_err() {
            writer = None;
        }
        are_unsettled |= finished.is_err();
        if finished.is_ok() && !is_in_doubt && !are_unsettled {
            promised.durable = stored.len();
            disk.promise(promised);
        }
    }
    stored
}

/// Puts what a cut left into a directory and checks it.
fn check_after(octets: &[u8], cut: &CutPoint, steps: &[Step], what: &str) {
    let dir = fast_dir();
    let path = restore(dir.path(), octets, cut);
    let found = check(&path, steps);
    let promised = cut.promised;
    assert!(found >= promised.durable, "{what}: {found} of {promised:?}");
}

fn restore(dir: &Path, octets: &[u8], cut: &CutPoint) -> PathBuf {
    let path = dir.join("data");
    fs::write(&path, octets).unwrap();
    let index = index_path(&path);
    for (file, content) in [(with_suffix(&index, "-journal"), &cut.journal), (index, &cut.index)] {
        if let Some(content) = content {
            fs::write(file, content).unwrap();
        }
    }
    path
}

fn cuts_of_a_history(random: &mut Random) -> (Vec<CutPoint>, Vec<Step>) {
    let dir = fast_dir();
    let path = dir.path().join("data");
    fs::write(&path, b"").unwrap();
    let disk = SimDisk::over(Image::default(), path.clone());
    disk.note_cuts();
    let steps = live(&disk, &path, &history(random));
    let cuts = disk.take_cuts();
    assert_eq!(cuts.last().unwrap().promised.durable, steps.len());
    (cuts, steps)
}

#[test]
fn a_power_cut_at_any_instant_loses_nothing_promised() {
    let mut random = Random::new(1);
    let (cuts, steps) = cuts_of_a_history(&mut random);
    assert!(cuts.len() > 30, "{}", cuts.len());
    for (number, cut) in cuts.iter().enumerate() {
        // A commit may be undone: its journal's removal was not durable.
        let earlier = cuts[..number].iter().rev().find(|earlier| earlier.index != cut.index);
        let indexes = [Some(&cut.index), earlier.map(|earlier| &earlier.index)];
        for index in indexes.into_iter().flatten() {
            let cut = CutPoint { index: index.clone(), ..cut.clone() };
            for outcome in OUTCOMES {
                let octets = cut.image.after(outcome, &mut random);
                let mut cut = cut.clone();
                if outcome == Outcome::ProcessDies {
                    cut.promised.durable = cut.promised.acknowledged;
                }
                check_after(&octets, &cut, &steps, &format!("{number} {outcome:?}"));
            }
        }
    }
}

/// Of a line that becomes several, whole lines are there or none.
#[test]
fn a_cut_inside_of_a_divided_line_leaves_whole_lines() {
    let mut random = Random::new(3);
    let bodies: Vec<Vec<u8>> = (0..4).map(|_| random.octets(270_000)).collect();
    let gone: Vec<_> = (1..9_000).map(|uid| (uid, 9, true, guid_of(&[uid as u8]))).collect();
    let steps = vec![
        Step::text("SUB %(USERID tom MBOXNAME user.tom)"),
        Step::message(&bodies),
        Step::mailbox("a", 9_000, &gone),
        Step::message(&[random.octets(3_000)]),
    ];
    let dir = fast_dir();
    let path = dir.path().join("data");
    fs::write(&path, b"").unwrap();
    let disk = SimDisk::over(Image::default(), path.clone());
    disk.note_cuts();
    let steps = live(&disk, &path, &[steps]);
    assert_eq!(steps.len(), 4);
    let cuts = disk.take_cuts();
    let mut are_partial = 0;
    for (number, cut) in cuts.iter().enumerate() {
        for outcome in [Outcome::ProcessDies, Outcome::Scattered] {
            let octets = cut.image.after(outcome, &mut random);
            let mut cut = cut.clone();
            if outcome == Outcome::ProcessDies {
                cut.promised.durable = cut.promised.acknowledged;
                are_partial += usize::from(octets.len() > 300_000 && cut.promised.durable == 1);
            }
            check_after(&octets, &cut, &steps, &format!("{number} {outcome:?}"));
        }
    }
    assert!(are_partial > 2, "{are_partial} cuts in mid-line");
}

#[test]
fn a_power_cut_during_recovery_loses_nothing_promised() {
    let mut random = Random::new(2);
    let (cuts, steps) = cuts_of_a_history(&mut random);
    for (number, cut) in cuts.iter().enumerate() {
        for outcome in [Outcome::Torn, Outcome::Scattered] {
            let octets = cut.image.after(outcome, &mut random);
            let dir = fast_dir();
            let path = restore(dir.path(), &octets, cut);
            let disk = SimDisk::over(Image::settled(octets), path.clone());
            disk.note_cuts();
            drop(Writer::open_on(Box::new(disk.clone()), &path, 1_500).unwrap());
            for (step, again) in disk.take_cuts().iter().enumerate() {
                let again = CutPoint { promised: cut.promised, ..again.clone() };
                for outcome in [Outcome::ProcessDies, Outcome::Scattered] {
                    let octets = again.image.after(outcome, &mut random);
                    let what = format!("{number}, then {step} {outcome:?}");
                    check_after(&octets, &again, &steps, &what);
                }
            }
        }
    }
}

/// One failing call, or all from one on.
#[test]
fn a_disk_that_fails_at_any_call_is_never_answered_ok() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    for (lasting, errno) in [(1, EIO), (1, ENOSPC), (9, ENOSPC)] {
        for from in 1.. {
            let mut random = Random::new(from as u64);
            let dir = fast_dir();
            let path = dir.path().join("data");
            fs::write(&path, b"").unwrap();
            let disk = SimDisk::over(Image::default(), path.clone());
            disk.fail(Some(Failing { from, until: from + lasting, errno }));
            disk.note_cuts();
            let steps = live(&disk, &path, &history(&mut random));
            if disk.calls() < from {
                assert!(from > 10, "the history makes calls");
                break;
            }
            let what = format!("call {from} and {lasting} fail with {errno}");
            let cuts = disk.take_cuts();
            let last = cuts.last().unwrap();
            assert_eq!(last.image.live, disk.image().live);
            for outcome in OUTCOMES {
                let mut last = last.clone();
                if outcome == Outcome::ProcessDies {
                    last.promised.durable = last.promised.acknowledged;
                }
                let octets = last.image.after(outcome, &mut random);
                check_after(&octets, &last, &steps, &format!("{what}, {outcome:?}"));
            }
        }
    }
}
