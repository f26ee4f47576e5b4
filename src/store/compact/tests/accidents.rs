//! Death of the process at any place, and damage.

use super::*;
use crate::store::reindex;

/// Dies at every place in turn. Whoever opens the backup next finds all of the old
/// state, or all of the new one.
#[test]
fn it_can_be_killed_at_any_place() {
    let reference = Site::new();
    let end = reference.write(&simple_history());
    let old = reference.seen(None);
    reference.compact(&reference.policy(Some(end)));
    let new = reference.seen(None);
    let (mut with_old, mut with_new) = (0, 0);
    for place in 0.. {
        let site = Site::new();
        site.write(&simple_history());
        die_at(Some(place));
        let result = run(&site.path, &site.policy(Some(end)), 5, Wait::No, &mut |_| {});
        die_at(None);
        if result.is_ok() {
            break;
        }
        match place % 2 {
            0 => drop(Writer::open(&site.path, end).unwrap()),
            _ => drop(Backup::open(&site.path, Wait::No).unwrap()),
        }
        assert!(is_sound(&site), "killed at {place}");
        let seen = site.seen(None);
        assert!(seen == old || seen == new, "killed at {place}");
        with_old += u32::from(seen == old);
        with_new += u32::from(seen == new);
        let aside = site.files().into_iter().find(|name| name.starts_with("data.index."));
        assert!(aside.is_none_or(|name| name.starts_with("data.index.new")), "killed at {place}");
        site.compact(&site.policy(Some(end)));
        assert_eq!(site.seen(None), new, "killed at {place}");
        assert_eq!(site.files().len(), 2, "killed at {place}: {:?}", site.files());
    }
    assert!(with_old > 3 && with_new > 0, "{with_old} {with_new}");
}

/// A reindex was killed when the old index had gone, and the new one did not have its name yet.
#[test]
fn an_index_that_was_about_to_get_its_place_is_no_missing_one() {
    let site = Site::new();
    let end = site.write(&simple_history());
    let index = with_suffix(&site.path, ".index");
    for dry_run in [true, false] {
        fs::rename(&index, with_suffix(&site.path, ".index.new")).unwrap();
        site.compact(&Policy { dry_run, ..site.policy(Some(end)) });
        assert_eq!(site.files().len(), 2, "{:?}", site.files());
    }
    assert!(is_sound(&site));
}

#[test]
fn a_broken_index_is_built_again_and_compacted() {
    let site = Site::new();
    let end = site.write(&simple_history());
    let before = site.seen(None);
    fs::write(with_suffix(&site.path, ".index"), "what a disk has made of it").unwrap();
    let outcome = site.compact(&site.policy(Some(end - 1_000))).1;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert_eq!(site.seen(None), before);
    assert!(is_sound(&site));
}

/// Not a chunk of which another octet was copied than was read for the survey, although it
/// inflates to the same.
#[test]
fn what_is_copied_is_what_was_read() {
    let site = Site::new();
    site.write(&[
        (0, Op::Message(vec![1])),
        (0, Op::Mailbox(0, 0, 5, vec![(1, 1, false)])),
        (0, Op::EndChunk),
        (0, Op::Message(vec![2])),
        (0, Op::Mailbox(1, 1, 5, vec![(1, 2, false)])),
        (0, Op::EndChunk),
    ]);
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let offset = backup.index().chunks().unwrap()[1].offset;
    let file = File::options().read(true).write(true).open(&site.path).unwrap();
    let policy = site.policy(None);
    // Where a gzip header says which system has written it.
    for (change, is_the_same) in [(0, true), (1, false)] {
        let survey = &Survey::of(&file, &site.path, backup.index()).unwrap();
        survey.scratch.choose(policy.since).unwrap();
        let len_file = file.metadata().unwrap().len();
        let terms = Terms { since: policy.since, sizes: policy.sizes, len_file };
        let plan = &Plan::of(survey, terms).unwrap();
        let mut octet = [0];
        file.read_exact_at(&mut octet, offset + 9).unwrap();
        file.write_all_at(&[octet[0] ^ change], offset + 9).unwrap();
        let source = write::Source { path: &site.path, file: &file, survey, plan };
        let written = write::write(&source, &policy, 5, &mut |_| {});
        match written.map(|new| new.says_the_same_as(backup.index()).unwrap()) {
            Ok(is_same) => assert!(is_same && is_the_same),
            Err(error) => assert!(!is_the_same && error.to_string().ends_with("has changed")),
        }
    }
}

#[test]
fn damage_costs_what_cannot_be_read_and_keeps_the_original() {
    let site = Site::new();
    let end = site.write(&[
        (0, Op::Message(vec![1])),
        (0, Op::Mailbox(0, 0, 5, vec![(1, 1, false)])),
        (0, Op::EndChunk),
        (0, Op::Message(vec![2, 5])),
        (0, Op::EndChunk),
        (0, Op::Mailbox(0, 0, 6, vec![(2, 2, false), (5, 5, false)])),
        (0, Op::EndChunk),
    ]);
    let mut octets = fs::read(&site.path).unwrap();
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let offset = backup.index().chunks().unwrap()[1].offset;
    drop(backup);
    octets[offset as usize + 50..offset as usize + 70].fill(0xff);
    fs::write(&site.path, &octets).unwrap();
    let (events, outcome) = site.compact(&site.policy(Some(end)));
    assert!(events.iter().any(|event| event.starts_with("Damage(")), "{events:?}");
    let Outcome::Done { previous, damages, .. } = outcome else { panic!() };
    assert_eq!(damages[0].offset_file, offset);
    assert_eq!(fs::read(previous.unwrap()).unwrap(), octets);
    assert!(is_sound(&site));
    // The server asks for the messages again, because their records are gone too.
    let seen = site.seen(None);
    assert_eq!((seen.uids(), seen.message_count()), (vec![1], 1));
}

/// An index built anew has no row for a chunk of which nothing can be read. What was in it is not
/// forgotten when it is dropped.
#[test]
fn a_lost_chunk_keeps_mailboxes_in_doubt() {
    let site = Site::new();
    let all = [1, 2, 3].map(|uid| (uid, uid, false));
    let end = site.write(&[
        (0, Op::Message(vec![1, 2, 3])),
        (0, Op::Whole(0, 0, 5, all[..1].to_vec())),
        (0, Op::EndChunk),
        (9, Op::Whole(0, 0, 5, all[..2].to_vec())),
        (0, Op::EndChunk),
        // A part without a checksum.
        (9, Op::Mailbox(0, 0, 5, all[2..].to_vec())),
        (0, Op::EndChunk),
    ]);
    site.lose_chunk(1);
    reindex::run(&site.path, Wait::No, false, end, &mut |_| ()).unwrap();
    for damaged in [true, false] {
        let doubtful =
            Backup::open(&site.path, Wait::No).unwrap().index().doubtful_mailboxes().unwrap();
        assert_eq!(doubtful, [b"u0"]);
        let Outcome::Done { damages, .. } = site.compact(&site.policy(None)).1 else { panic!() };
        assert_eq!(!damages.is_empty(), damaged);
    }
}

/// Nothing is remembered of a log that cannot be read to its end, and its damage is told each time.
#[test]
fn damage_is_told_although_nothing_is_gained() {
    let site = Site::new();
    let end = site.write(&[
        (0, Op::Message(vec![1, 2])),
        (0, Op::Mailbox(0, 0, 5, vec![(1, 1, false), (2, 2, false)])),
        (0, Op::EndChunk),
        (9, Op::Mailbox(1, 1, 5, vec![])),
        (0, Op::EndChunk),
        (9, Op::Unmailbox(1)),
        (0, Op::EndChunk),
    ]);
    let mut octets = fs::read(&site.path).unwrap();
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let second = backup.index().chunks().unwrap()[1].offset as usize;
    drop(backup);
    // The checksum of the first chunk.
    octets[second - 8] ^= 1;
    fs::write(&site.path, &octets).unwrap();
    let mut policy = site.policy(Some(end - 1));
    policy.force = false;
    for _ in 0..2 {
        let (events, outcome) = site.compact(&policy);
        assert_eq!(outcome, Outcome::Skipped);
        assert!(events.iter().any(|event| event.starts_with("Damage(")), "{events:?}");
    }
    assert_eq!(fs::read(&site.path).unwrap(), octets);
}
