//! Puts a Sieve script on the server through its ManageSieve service.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Stores `script` as `name`, and makes it the active one if asked.
pub(crate) fn put_script(
    port: u16,
    user: &str,
    password: &str,
    name: &str,
    script: &str,
    active: bool,
) {
    let mut reader = login(port, user, password);
    say(&mut reader, &format!("PUTSCRIPT \"{name}\" {{{}+}}\r\n{script}", script.len()));
    if active {
        say(&mut reader, &format!("SETACTIVE \"{name}\""));
    }
    say(&mut reader, "LOGOUT");
}

/// Makes no script the active one.
pub(crate) fn deactivate(port: u16, user: &str, password: &str) {
    let mut reader = login(port, user, password);
    say(&mut reader, "SETACTIVE \"\"");
    say(&mut reader, "LOGOUT");
}

/// The scripts with their names and texts, the active one marked, in lines.
pub(crate) fn scripts(port: u16, user: &str, password: &str) -> Vec<String> {
    let mut reader = login(port, user, password);
    let listed = ask(&mut reader, "LISTSCRIPTS");
    let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
    lines.retain(|line| line.starts_with('"'));
    lines.sort();
    for i in 0..lines.len() {
        let name = lines[i].split('"').nth(1).unwrap().to_owned();
        lines.push(ask(&mut reader, &format!("GETSCRIPT \"{name}\"")));
    }
    lines
}

fn ask(reader: &mut BufReader<TcpStream>, command: &str) -> String {
    write!(reader.get_mut(), "{command}\r\n").unwrap();
    expect_ok(reader)
}

fn login(port: u16, user: &str, password: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut reader = BufReader::new(stream);
    expect_ok(&mut reader);
    let login = sasl_plain(user, password);
    say(&mut reader, &format!("AUTHENTICATE \"PLAIN\" \"{login}\""));
    reader
}

fn say(reader: &mut BufReader<TcpStream>, command: &str) {
    write!(reader.get_mut(), "{command}\r\n").unwrap();
    expect_ok(reader);
}

/// Everything up to the final line.
fn expect_ok(reader: &mut BufReader<TcpStream>) -> String {
    let mut seen = String::new();
    loop {
        let start = seen.len();
        let len = reader.read_line(&mut seen).unwrap();
        let line = &seen[start..];
        if line.starts_with("OK") {
            return seen[..start].to_owned();
        }
        assert!(len > 0 && !line.starts_with("NO") && !line.starts_with("BYE"), "{seen}");
    }
}

/// The base64 of a SASL PLAIN message without an authorisation identity.
pub(crate) fn sasl_plain(user: &str, password: &str) -> String {
    base64(format!("\0{user}\0{password}").as_bytes())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0_usize, |word, &byte| word << 8 | usize::from(byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = ALPHABET[word >> (18 - 6 * place) & 63];
            out.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}
