//! Files of messages that wait: written, torn, broken, and found again.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use sha1::{Digest as _, Sha1};

use super::*;
use crate::wire::Guid;

fn header(octets: &[u8]) -> FileHeader {
    let guid = Guid::from(<[u8; 20]>::from(Sha1::digest(octets)));
    FileHeader { partition: b"default".to_vec(), guid, size: octets.len() as u64 }
}

fn keys(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Who lacks it, and its octets.
type Message = (Vec<Vec<u8>>, Vec<u8>);

fn messages() -> Vec<Message> {
    let large: Vec<u8> = (0..BUFFER + 9).map(|i| (i % 251) as u8).collect();
    vec![
        (keys(&["tom", "bob"]), b"one\r\n)\r\nLACKING (x)\r\n".to_vec()),
        (keys(&["tom", "bob"]), Vec::new()),
        (keys(&["bob", "o brien@example.com", "%SHARED"]), b"%{default".to_vec()),
        (keys(&["tom", "bob"]), large),
    ]
}

fn add(waiting: &mut WaitingFile, (lacking, octets): &Message) -> Body {
    let from = Staging::new(PathBuf::new());
    waiting.add(lacking, &header(octets), &Body::Memory(octets.clone()), &from).unwrap()
}

fn octets(staging: &Staging, body: &Body) -> Vec<u8> {
    let mut octets = Vec::new();
    let take = |piece: &[u8]| -> io::Result<()> {
        octets.extend_from_slice(piece);
        Ok(())
    };
    staging.read(body, take).unwrap();
    octets
}

fn read_all(leftover: &Leftover) -> (Vec<Message>, Result<usize, WaitingError>) {
    let mut groups = leftover.groups();
    let mut found = Vec::new();
    loop {
        match groups.next_group() {
            Ok(Some(group)) => {
                assert_eq!(group.files.len(), group.bodies.len());
                for (file, body) in group.files.iter().zip(&group.bodies) {
                    let octets = octets(leftover.staging(), body);
                    assert_eq!(*file, header(&octets));
                    found.push((group.lacking.clone(), octets));
                }
            }
            Ok(None) => return (found, Ok(groups.damaged())),
            Err(error) => {
                assert!(matches!(groups.next_group(), Ok(None)));
                return (found, Err(error));
            }
        }
    }
}

/// A file without an owner, with this content.
fn left(directory: &Path, content: &[u8]) -> Leftover {
    let path = directory.join(format!("{PREFIX}x"));
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    Leftover::open(&path).unwrap().unwrap()
}

#[test]
fn what_was_kept_is_found_when_its_owner_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("deep/er");
    assert!(leftovers(&directory).unwrap().is_empty());
    let mut waiting = WaitingFile::create(&directory).unwrap();
    for message in messages() {
        let body = add(&mut waiting, &message);
        waiting.keep().unwrap();
        assert_eq!(octets(waiting.staging(), &body), message.1);
    }
    let path = waiting.path().to_owned();
    assert_eq!(leftovers(&directory).unwrap(), [&*path]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Leftover::open(&path).unwrap().is_none(), "its owner is alive");
    drop(waiting);
    let leftover = Leftover::open(&path).unwrap().unwrap();
    assert!(Leftover::open(&path).unwrap().is_none(), "somebody is at it");
    for _ in 0..2 {
        let (found, damaged) = read_all(&leftover);
        assert_eq!(found, messages());
        assert_eq!(damaged.unwrap(), 0);
    }
    leftover.remove().unwrap();
    assert!(leftovers(&directory).unwrap().is_empty());
    assert!(Leftover::open(&path).unwrap().is_none(), "it is gone");
}

#[test]
fn a_torn_tail_at_any_octet_takes_no_whole_line_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut waiting = WaitingFile::create(dir.path()).unwrap();
    let messages = &messages()[..3];
    let mut ends = Vec::new();
    for message in messages {
        add(&mut waiting, message);
        waiting.keep().unwrap();
        ends.push(fs::metadata(waiting.path()).unwrap().len() as usize);
    }
    let content = fs::read(waiting.path()).unwrap();
    assert_eq!(content.len(), ends[2]);
    for len in 0..=content.len() {
        let leftover = left(dir.path(), &content[..len]);
        let (found, damaged) = read_all(&leftover);
        let whole = ends.iter().filter(|end| **end <= len).count();
        assert_eq!(found, messages[..whole], "{len}");
        assert_eq!(damaged.unwrap(), 0, "{len}");
    }
}

#[test]
fn what_is_taken_back_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut waiting = WaitingFile::create(dir.path()).unwrap();
    let messages = messages();
    add(&mut waiting, &messages[0]);
    waiting.keep().unwrap();
    add(&mut waiting, &messages[2]);
    add(&mut waiting, &messages[3]);
    let gone = Body::Staged { offset: 0, len: 1 };
    let from = Staging::new(PathBuf::new());
    waiting.add(&messages[0].0, &header(b"x"), &gone, &from).unwrap_err();
    waiting.take_back();
    waiting.take_back();
    // The LACKING line in front of this one went, too.
    let body = add(&mut waiting, &messages[2]);
    waiting.keep().unwrap();
    assert_eq!(octets(waiting.staging(), &body), messages[2].1);
    let path = waiting.path().to_owned();
    drop(waiting);
    let (found, _) = read_all(&Leftover::open(&path).unwrap().unwrap());
    assert_eq!(found, [messages[0].clone(), messages[2].clone()]);
}

#[test]
fn what_is_broken_is_told_and_what_stands_in_front_of_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let good =
        format!("LACKING (tom bob)\r\nMESSAGE (%{{default {} 3}}\r\nabc)\r\n", header(b"abc").guid);
    let title = String::from_utf8(TITLE.to_vec()).unwrap();
    let after = |text: &str| format!("{title}\r\n{good}{text}");
    let guid = header(b"abc").guid;
    for (bad, offset) in [
        (after("\r\n"), 0),
        (after("\0\0\0\0\0\0\r\n"), 0),
        (after("APPLY x\r\n"), 0),
        (after("LACKING ()\r\n"), 0),
        (after("LACKING (NIL)\r\n"), 0),
        (after("LACKING (%(A b))\r\n"), 0),
        (after(&format!("LACKING (%{{default {guid} 3}}\r\nabc)\r\n")), 0),
        (after("MESSAGE ()\r\n"), 0),
        (after("MESSAGE (x)\r\n"), 0),
        (
            after(&format!(
                "MESSAGE (%{{default {guid} 3}}\r\nabc %{{default {guid} 3}}\r\nabc)\r\n"
            )),
            0,
        ),
        (after(&format!("MESSAGE (%{{default {guid} 9999999999}}\r\nabc)\r\n")), 0),
        (after("MESSAGE (%{d xyz 3}\r\nabc)\r\n"), 0),
        (after(&format!("LACKING ({{{}+}}\r\n", u64::from(u32::MAX) + 1)), 0),
        (good.clone(), 1),
        (format!("{title} 2\r\n{good}"), 1),
        (format!("{title}\r\nMESSAGE (%{{default {guid} 3}}\r\nabc)\r\n"), 2),
    ] {
        let (found, result) = read_all(&left(dir.path(), bad.as_bytes()));
        let Err(WaitingError::Broken { offset: at, .. }) = result else {
            panic!("{bad}: {result:?}")
        };
        let (count, expected) = match offset {
            0 => (1, title.len() + 2 + good.len()),
            1 => (0, 0),
            _ => (0, title.len() + 2),
        };
        assert_eq!((found.len(), at as usize), (count, expected), "{bad}");
    }
}

#[test]
fn a_damaged_message_is_passed_over_and_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut waiting = WaitingFile::create(dir.path()).unwrap();
    messages().iter().for_each(|message| {
        add(&mut waiting, message);
    });
    waiting.keep().unwrap();
    let mut content = fs::read(waiting.path()).unwrap();
    let at = content.windows(5).position(|five| five == b"one\r\n").unwrap();
    content[at] ^= 1;
    let leftover = left(dir.path(), &content);
    let (found, damaged) = read_all(&leftover);
    assert_eq!(found, messages()[1..]);
    assert_eq!(damaged.unwrap(), 1);
    let kept = leftover.put_aside().unwrap();
    assert_eq!(fs::read(&kept).unwrap(), content);
    let again = left(dir.path(), &content).put_aside().unwrap();
    assert_ne!(kept, again);
    assert_eq!(leftovers(dir.path()).unwrap(), [waiting.path().to_owned()]);
}

/// Anybody could have put them there.
#[test]
fn other_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("{PREFIX}x"));
    let refused = || {
        assert!(Leftover::open(&path).is_err());
        fs::remove_file(&path).unwrap();
    };
    fs::write(&path, TITLE).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    refused();
    fs::write(dir.path().join("other"), TITLE).unwrap();
    symlink(dir.path().join("other"), &path).unwrap();
    refused();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    refused();
    fs::create_dir(&path).unwrap();
    assert!(Leftover::open(&path).is_err());
    if nix::unistd::geteuid().is_root() {
        fs::remove_dir(&path).unwrap();
        fs::write(&path, TITLE).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        refused();
    }
}

/// A file is adopted while it is being made: its owner makes another one.
#[test]
fn files_that_are_taken_away_at_once_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                for path in leftovers(dir.path()).unwrap() {
                    if let Some(leftover) = Leftover::open(&path).unwrap_or_default() {
                        leftover.remove().unwrap();
                    }
                }
            }
        });
        for _ in 0..300 {
            let mut waiting = WaitingFile::create(dir.path()).unwrap();
            add(&mut waiting, &messages()[0]);
            waiting.keep().unwrap();
            assert!(lock::is_current(&waiting.file, waiting.path()).unwrap());
            waiting.remove().unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}
