//! Data bases made by Debian's `saslpasswd2` (`many`, `long`) and the same entries loaded by
//! Berkeley DB 5.3 with big-endian integers and small pages (`*.big-endian`); damage.
#![allow(clippy::unwrap_used)]

use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sasldb");

fn fixture(name: &str) -> Sasldb {
    Sasldb::new(Path::new(FIXTURES).join(name), "Mail.example.COM")
}

fn password(db: &Sasldb, user: &str) -> Option<String> {
    db.password(user).unwrap().map(|password| String::from_utf8(password).unwrap())
}

#[test]
fn each_of_many_users_is_found() {
    for name in ["many", "many.big-endian"] {
        let db = fixture(name);
        for i in 0..=301 {
            let exists = (1..300).contains(&i) && i != 7 && i != 70;
            let expected = exists.then(|| format!("password-{i}"));
            assert_eq!(password(&db, &format!("user{i}")), expected, "{name} {i}");
        }
        assert_eq!(password(&db, "user1@mail.example.com").as_deref(), Some("password-1"));
        for nobody in ["", "user1@other.example.com", "user1@", "user1\0", "USER1"] {
            assert_eq!(password(&db, nobody), None, "{name} {nobody:?}");
        }
    }
}

#[test]
fn long_passwords_lie_in_overflow_pages() {
    for name in ["long", "long.big-endian"] {
        let db = Sasldb::new(Path::new(FIXTURES).join(name), "long.example.com");
        for len in [1, 700, 1500, 2048] {
            let found = password(&db, &format!("long{len}")).unwrap();
            assert_eq!(found, "x".repeat(len), "{name} {len}");
        }
        assert_eq!(password(&db, "long1@other.example.com").as_deref(), Some("other"));
    }
}

#[test]
fn damage_is_an_error_or_nobody_and_never_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sasldb2");
    let db = Sasldb::new(path.clone(), "mail.example.com");
    let long = |len| format!("long{len}@long.example.com");
    for name in ["long", "long.big-endian"] {
        let whole = std::fs::read(Path::new(FIXTURES).join(name)).unwrap();
        for len in (0..whole.len()).step_by(509) {
            std::fs::write(&path, &whole[..len]).unwrap();
            let _ = db.password(&long(2048));
        }
        // Every octet that is no password and no padding, each way.
        for at in (0..whole.len()).filter(|&at| at < 140 || at % 512 < 34) {
            for value in [0, 3, 0xff, whole[at] ^ 1] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                std::fs::write(&path, damaged).unwrap();
                let found = db.password(&long(2048));
                assert!(found.is_err() || found.unwrap().is_none_or(|p| p.len() <= 16 * 1024));
            }
        }
    }
}

#[test]
fn chains_that_lead_back_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sasldb2");
    let mut octets = std::fs::read(Path::new(FIXTURES).join("many")).unwrap();
    for page in 1..octets.len() / 4096 {
        octets[page * 4096 + 16..page * 4096 + 20].copy_from_slice(&(page as u32).to_le_bytes());
    }
    std::fs::write(&path, octets).unwrap();
    let error = Sasldb::new(path, "x").password("nobody").unwrap_err().to_string();
    assert!(error.contains("a chain of pages without an end"), "{error}");
}

#[test]
fn other_formats_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sasldb2");
    let db = Sasldb::new(path.clone(), "x");
    assert!(db.check().unwrap_err().is_missing());
    let page = |at: usize, octets: &[u8]| {
        let mut file = vec![0; 4096];
        file[at..at + octets.len()].copy_from_slice(octets);
        std::fs::write(&path, file).unwrap();
        db.check().unwrap_err().to_string()
    };
    for (at, octets, what) in [
        (0, &0x1357_9acf_u32.to_le_bytes()[..], "sasldb2: a gdbm file; only"),
        (16, &0xbeef_c0de_u32.to_le_bytes()[..], "an lmdb file"),
        (12, &0x0005_3162_u32.to_be_bytes()[..], "a Berkeley DB btree"),
        (0, &0x0006_1561_u32.to_be_bytes()[..], "a Berkeley DB 1.85 file"),
        (0, b"root:x:0:0", "not a data base"),
        (12, &[0x61, 0x15, 6, 0, 7], "a Berkeley DB hash of another version"),
        (12, &[0x61, 0x15, 6, 0, 9, 0, 0, 0, 0, 16, 0, 0, 1], "with encryption"),
        (12, &[0x61, 0x15, 6, 0, 9, 0, 0, 0, 1, 16, 0, 0, 0, 8], "impossible header"),
        (12, &[0x61, 0x15, 6, 0, 9, 0, 0, 0, 0, 16, 0, 0, 0, 8], "another hash function"),
    ] {
        let error = page(at, octets);
        assert!(error.contains(what), "{error}");
    }
    std::fs::write(&path, b"").unwrap();
    assert!(db.check().unwrap_err().to_string().contains("too short"));
}

#[test]
fn files_out_of_reach_are_told_from_damaged_ones() {
    let error = |kind: io::ErrorKind| SasldbError::Io { path: "x".into(), source: kind.into() };
    assert!(error(io::ErrorKind::NotFound).is_out_of_reach());
    assert!(error(io::ErrorKind::PermissionDenied).is_out_of_reach());
    assert!(!error(io::ErrorKind::PermissionDenied).is_missing());
    assert!(!error(io::ErrorKind::Other).is_out_of_reach());
}
