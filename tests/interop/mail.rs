//! Messages to back up: a public corpus, and some made up.

use std::fs;
use std::path::Path;

/// One message ready for APPEND: CRLF line ends.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// The corpus under `tests/fixtures/mail`, in name order.
pub(crate) fn corpus() -> Vec<Message> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mail");
    let mut messages: Vec<Message> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| Message {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            bytes: for_append(&fs::read(&path).unwrap()),
        })
        .collect();
    messages.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(messages.len() >= 30, "the sample mail is incomplete");
    messages
}

/// Drops the mbox `From ` line and makes every line end in CRLF; no CR stands alone.
fn for_append(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 32);
    for (number, line) in raw.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if number == 0 && line.starts_with(b"From ") {
            continue;
        }
        out.extend(line.iter().filter(|&&byte| byte != b'\r' && byte != b'\n'));
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A short message that differs from all others by its `number`.
pub(crate) fn note(number: u32) -> Message {
    let name = format!("note-{number}");
    let bytes = format!(
        "From: writer@example.test\r\nSubject: {name}\r\nMessage-ID: <{name}@example.test>\r\n\r\n\
         Note number {number}.\r\n"
    );
    Message { name, bytes: bytes.into_bytes() }
}

/// A message of so many octets or a few more, which is like no other and hardly compresses.
pub(crate) fn noise(number: u32, len: usize) -> Vec<u8> {
    let mut text = format!("Subject: {number}\r\n\r\n").into_bytes();
    let mut word = u64::from(number) + 1;
    while text.len() < len {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.extend_from_slice(format!("{word:016x}\r\n").as_bytes());
    }
    text
}

/// A body of every octet but NUL, CR and LF, without any declared charset.
pub(crate) fn all_octets() -> Message {
    let mut bytes = b"From: a@example.test\r\nSubject: 8 bit\r\n\r\n".to_vec();
    for octet in (1..=255_u8).filter(|&octet| octet != b'\r' && octet != b'\n') {
        bytes.push(octet);
        if octet % 32 == 31 {
            bytes.extend_from_slice(b"\r\n");
        }
    }
    // No line end at the end.
    Message { name: "all-octets".into(), bytes }
}

/// One line of 300 000 octets, and text that looks like protocol.
pub(crate) fn long_line() -> Message {
    let mut bytes = b"From: a@example.test\r\nSubject: long line\r\n\r\n".to_vec();
    bytes.extend(b"0123456789".iter().cycle().take(300_000));
    bytes.extend_from_slice(b"\r\nOK Success\r\nEXIT\r\n1795250342 APPLY MESSAGE ({3+}\r\n");
    Message { name: "long-line".into(), bytes }
}

/// About `len` octets that hardly compress.
pub(crate) fn huge(len: usize) -> Message {
    let mut bytes = b"From: a@example.test\r\nSubject: huge\r\n\r\n".to_vec();
    bytes.reserve(len + 80);
    // xorshift64: the same octets in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while bytes.len() < len {
        for _ in 0..76 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push(b'!' + (state % 90).to_le_bytes()[0]);
        }
        bytes.extend_from_slice(b"\r\n");
    }
    Message { name: "huge".into(), bytes }
}

/// The GUID that Cyrus gives a message: the SHA-1 of its octets in lower-case hex.
pub(crate) fn guid(message: &[u8]) -> String {
    use sha1::Digest;
    sha1::Sha1::digest(message).iter().map(|octet| format!("{octet:02x}")).collect()
}
