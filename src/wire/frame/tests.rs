//! The framer: its edges, and that any cut of the stream gives the same lines.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { line: 200, literal: 50, body: 60, bodies: 3 };
const GUID: &str = "4eea1e78e5032625a64f9ba26611156942a8f86a";

#[derive(Debug, PartialEq, Default, Clone)]
struct Seen {
    lines: Vec<Result<Vec<u8>, Poison>>,
    bodies: Vec<Vec<u8>>,
    continues: usize,
    lost: bool,
    rest_clean: bool,
}

fn run(pieces: &[&[u8]]) -> Seen {
    let mut framer = Framer::new(LIMITS);
    let mut seen = Seen::default();
    'pieces: for piece in pieces {
        let mut input = *piece;
        loop {
            match framer.next(&mut input) {
                Event::More => break,
                Event::Continue => seen.continues += 1,
                Event::BodyStart(_) => seen.bodies.push(Vec::new()),
                Event::Body(octets) => seen.bodies.last_mut().unwrap().extend_from_slice(octets),
                Event::BodyEnd => {}
                Event::Line => seen.lines.push(framer.take_line()),
                Event::Lost => {
                    seen.lost = true;
                    break 'pieces;
                }
            }
        }
    }
    seen.rest_clean = framer.at_line_start();
    seen
}

fn whole(text: &str) -> Seen {
    run(&[text.as_bytes()])
}

fn line(text: &str) -> Result<Vec<u8>, Poison> {
    Ok(text.as_bytes().to_vec())
}

#[test]
fn lines_with_and_without_cr() {
    assert_eq!(whole("NOOP\r\nEXIT\n\r\n").lines, [line("NOOP"), line("EXIT"), line("")]);
}

#[test]
fn literals_stay_in_the_line_whatever_they_hold() {
    let text = "A (x {8+}\r\n)\r\nEXIT\n y)\r\nB\r\n";
    assert_eq!(whole(text).lines, [line("A (x {8+}\r\n)\r\nEXIT\n y)"), line("B")]);
    assert_eq!(whole("A {2}\r\nhi\r\n").continues, 1);
    assert_eq!(whole("A {0+}\r\n x\r\n").lines, [line("A {0+}\r\n x")]);
}

#[test]
fn bodies_do_not() {
    let text = format!("APPLY MESSAGE (%{{p {GUID} 6}}\r\nEXIT\r\n %{{p {GUID} 0}}\r\n)\r\n");
    let seen = whole(&text);
    assert_eq!(seen.bodies, [b"EXIT\r\n".to_vec(), b"".to_vec()]);
    let kept = format!("APPLY MESSAGE (%{{p {GUID} 6}}\r\n %{{p {GUID} 0}}\r\n)");
    assert_eq!(seen.lines, [line(&kept)]);
}

#[test]
fn braces_count_only_where_a_value_may_begin() {
    for text in ["A b{3}", "A \"{3}\"", "A \"a\\\"{3}\"", "A b%{x y 3}", "A %x{3}", "A {3x}"] {
        assert_eq!(whole(&format!("{text}\r\nB\r\n")).lines, [line(text), line("B")], "{text}");
    }
}

#[test]
fn a_line_that_is_only_looked_at() {
    let mut framer = Framer::new(LIMITS);
    let text = format!("A %(b {{2}}\r\n)(c)\r\n{}\r\n\r\n", "x".repeat(300));
    let mut input = text.as_bytes();
    let mut lines = Vec::new();
    loop {
        match framer.next(&mut input) {
            Event::Line => lines.push(framer.read_line(<[u8]>::to_vec)),
            Event::More => break,
            Event::Continue => {}
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(lines, [line("A %(b {2}\r\n)(c)"), Err(Poison::Line(200)), line("")]);
    assert!(framer.at_line_start());
}

#[test]
fn limits_at_their_edges() {
    let literal = |n: usize| whole(&format!("A {{{n}+}}\r\n{}\r\nB\r\n", "x".repeat(n)));
    assert!(literal(50).lines[0].is_ok());
    assert_eq!(literal(51).lines, [Err(Poison::Literal(51)), line("B")]);

    let body = |n: usize| whole(&format!("A (%{{p {GUID} {n}}}\r\n{})\r\nB\r\n", "x".repeat(n)));
    assert!(body(60).lines[0].is_ok());
    assert_eq!(body(61).lines, [Err(Poison::Body(61)), line("B")]);
    assert!(body(61).bodies.is_empty());

    let long = |n: usize| whole(&format!("{}\r\nB\r\n", "x".repeat(n)));
    assert!(long(199).lines[0].is_ok());
    assert_eq!(long(201).lines, [Err(Poison::Line(200)), line("B")]);

    let many =
        |n: usize| whole(&format!("A{}\r\nB\r\n", " %{p G 1}\r\nx".replace('G', GUID).repeat(n)));
    assert!(many(3).lines[0].is_ok());
    assert_eq!(many(4).lines.len(), 2);
    assert!(many(4).lines[0].is_err());
}

#[test]
fn a_poisoned_line_still_ends_where_it_ends() {
    let text = format!(
        "A {} {{3+}}\r\na\nb (%{{p {GUID} 7}}\r\nEVIL\r\n!) \"q\"\r\nB\r\n",
        "x".repeat(300)
    );
    assert_eq!(whole(&text).lines, [Err(Poison::Line(200)), line("B")]);
}

#[test]
fn unbelievable_lengths_end_it() {
    assert!(whole("A {4294967296+}\r\n").lost);
    assert!(whole(&format!("A %{{p {GUID} 4294967296}}\r\n")).lost);
    assert!(whole("A %{p nonsense}\r\nEXIT\r\n").lost);
}

#[test]
fn a_body_behind_a_wrong_header_is_no_command() {
    let text = "A (%{p nonsense 6}\r\nEXIT\r\n)\r\nB\r\n";
    assert_eq!(whole(text).lines, [Err(Poison::Header), line("B")]);
}

proptest! {
    #[test]
    fn any_cut_gives_the_same(
        text in stream(),
        cuts in prop::collection::vec(0usize..400, 0..6),
    ) {
        let bytes = text.as_bytes();
        let mut at: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let expected = run(&[bytes]);
        prop_assert_eq!(&run(&pieces), &expected);
        prop_assert_eq!(&run(&single), &expected);
    }

    #[test]
    fn no_octets_can_harm(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        run(&[&bytes]);
    }
}

fn stream() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z(){}%+\"\\\\ 0-9]{0,12}",
        Just("\r\n".to_owned()),
        Just("\n".to_owned()),
        (0usize..70).prop_map(|n| format!(" {{{n}+}}\r\n{}", "\n".repeat(n))),
        (0usize..70).prop_map(|n| format!(" %{{p {GUID} {n}}}\r\n{}", "b".repeat(n))),
        Just("y".repeat(150)),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

/// In the log such a partition would be a literal inside of the header, which nothing can read.
#[test]
fn a_partition_that_is_no_short_text_is_refused() {
    let guid = "4eea1e78e5032625a64f9ba26611156942a8f86a";
    let long = "p".repeat(1024);
    for partition in [
        "a%b",
        "\"a%b\"",
        r#""a\"b""#,
        r#""a\\""#,
        r#""\"b c""#,
        "\u{e9}",
        "\"a\u{e9}\"",
        "a\\b",
        &long,
    ] {
        let text = format!("APPLY MESSAGE (%{{{partition} {guid} 5}}\r\nEXIT\n)\r\nNOOP\r\n");
        let mut framer = Framer::new(Limits::LOG);
        let mut input = text.as_bytes();
        assert_eq!(framer.next(&mut input), Event::Line, "{partition}");
        assert_eq!(framer.take_line(), Err(Poison::Header), "{partition}");
        assert_eq!(framer.next(&mut input), Event::Line, "{partition}");
        assert_eq!(framer.take_line().as_deref(), Ok(&b"NOOP"[..]), "{partition}");
    }
}
