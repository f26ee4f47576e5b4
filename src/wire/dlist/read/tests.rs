//! Values as they are read, hostile ones too.

use super::super::{DEPTH_MAX, FIELDS_MAX};
use super::*;

fn atom(text: &str) -> Value<'_> {
    Value::Atom(Cow::Borrowed(text.as_bytes()))
}

#[test]
fn every_form() {
    assert_eq!(parse_value(b"NIL").unwrap(), Value::Nil);
    assert_eq!(parse_value(b"\"NIL\"").unwrap(), atom("NIL"));
    assert_eq!(parse_value(b"nil").unwrap(), atom("nil"));
    assert_eq!(parse_value(b"\\Seen").unwrap(), Value::Flag(b"\\Seen"));
    assert_eq!(parse_value(b"a]b}c%*{").unwrap(), atom("a]b}c%*{"));
    assert_eq!(parse_value(b"{3+}\r\na\n)").unwrap(), atom("a\n)"));
    assert_eq!(parse_value(b"{3}\r\nabc").unwrap(), atom("abc"));
    assert_eq!(parse_value(b"\"a\\\"b\\c\"").unwrap().as_text().unwrap(), b"a\"bc");
    let (key, value) = parse_item(b"MAILBOXES(a  b )").unwrap();
    assert_eq!(&*key, b"MAILBOXES");
    assert_eq!(value.as_list().items().collect::<Vec<_>>(), [atom("a"), atom("b")]);
}

#[test]
fn kvlists_nest_and_the_first_key_wins() {
    let (_, value) = parse_item(b"X %(A 1 B (x %(C 2) \\F) A 3 d NIL)").unwrap();
    let Value::KvList(kv) = value else { panic!() };
    let fields = kv.fields();
    assert_eq!(fields.number("A"), Some(1));
    assert_eq!(fields.get("B").unwrap().as_list().items().count(), 3);
    assert_eq!(fields.get("d"), Some(&Value::Nil));
    assert_eq!(fields.get("D"), None);
    assert!(fields.get("A").unwrap().as_list().is_empty());
}

#[test]
fn message_headers() {
    let text = b"MESSAGE (%{\"my part\" 4eea1e78e5032625a64f9ba26611156942a8f86a 21}\r\n \
                 %{d 4eea1e78e5032625a64f9ba26611156942a8f86a 0}\r\n)";
    let (_, value) = parse_item(text).unwrap();
    let files: Vec<_> = value.as_list().items().collect();
    let Value::File(first) = &files[0] else { panic!() };
    assert_eq!((first.partition.as_slice(), first.size), (&b"my part"[..], 21));
    assert_eq!(files.len(), 2);
}

#[test]
fn numbers() {
    for (text, expected) in
        [("0123", Some(123)), ("-1", None), ("1x", None), ("18446744073709551616", None)]
    {
        assert_eq!(parse_value(text.as_bytes()).unwrap().as_number(), expected, "{text}");
    }
    assert_eq!(parse_value(b"\"\"").unwrap().as_number(), None);
}

/// All that a walk meets, with the spans of lists.
fn walk(value: &Value<'_>, out: &mut Vec<String>) {
    match value {
        Value::List(list) => {
            out.push(format!("( {}", list.span.escape_ascii()));
            assert_named_agrees(list);
            list.items().for_each(|item| walk(&item, out));
        }
        Value::KvList(kv) => {
            out.push(format!("%( {}", kv.span.escape_ascii()));
            for (key, value) in kv.pairs() {
                out.push(key.escape_ascii().to_string());
                walk(&value, out);
            }
        }
        other => out.push(format!("{other:?}")),
    }
}

/// [`List::named`] says what its elements do by themselves.
fn assert_named_agrees(list: &List<'_>) {
    let named: Vec<_> = list.named([b"a", b"1"]).collect();
    let expected = list.items().map(|item| match item {
        Value::KvList(kv) => {
            let fields = kv.fields();
            Some(["a", "1"].map(|name| fields.get(name).cloned()))
        }
        _ => None,
    });
    assert_eq!(named, expected.collect::<Vec<_>>(), "{}", list.span.escape_ascii());
}

/// As `walk`, but each list is checked again.
fn walk_checking(value: &Value<'_>, out: &mut Vec<String>) {
    let (span, is_kv) = match value {
        Value::List(list) => (list.span, false),
        Value::KvList(kv) => (kv.span, true),
        other => return out.push(format!("{other:?}")),
    };
    out.push(format!("{} {}", if is_kv { "%(" } else { "(" }, span.escape_ascii()));
    let mut scanner = Scanner::new(span);
    loop {
        scanner.skip_space();
        if scanner.at_end() {
            return;
        }
        if is_kv {
            let (key, value) = scanner.key_value(0).unwrap();
            out.push(key.escape_ascii().to_string());
            walk_checking(&value, out);
        } else {
            walk_checking(&scanner.value(0).unwrap(), out);
        }
    }
}

fn assert_walks_agree(text: &[u8]) {
    let Ok((_, value)) = parse_item(text) else { return };
    let (mut skimming, mut checking) = (Vec::new(), Vec::new());
    walk(&value, &mut skimming);
    walk_checking(&value, &mut checking);
    assert_eq!(skimming, checking, "{}", text.escape_ascii());
}

#[test]
fn lists_are_found_again_where_they_were_checked() {
    for text in [
        "X ((a (b)) %(k (c)) \\F d)",
        "X (%(k \"(\" \"l\" \"a\\\")\") {3+}\r\n(\"( z)",
        "X (%(%{a (b) c %(d e)) (%{d 4eea1e78e5032625a64f9ba26611156942a8f86a 0}\r\n) y)",
        "X (%(%(a b) c d) ((%(e NIL)(f)%(g h)) i))",
        "X (%(a 1 b 2 a 3) b %() %(1 (x) {1+}\r\na %(a b)) (%(a NIL a c)))",
        "X (%({1+}\r\na {2+}\r\n)) b (c)) (\\{3}) x{3} ()%())",
    ] {
        assert!(parse_item(text.as_bytes()).is_ok(), "{text}");
        assert_walks_agree(text.as_bytes());
    }
}

proptest::proptest! {
    #[test]
    fn any_lists_are_found_again(text in "X [(][%(){}a 1+\"\\\\\n-]{0,40}[)]") {
        assert_walks_agree(text.as_bytes());
    }
}

#[test]
fn broken_text_is_an_error_with_a_place() {
    for text in [
        "",
        "X",
        "X (",
        "X %(A",
        "X %(A)",
        "X )",
        "X (a))",
        "X \"a",
        "X \"a\nb\"",
        "X {5+}\r\nabc",
        "X {99999999999999999999+}\r\n",
        "X %{a b c}\r\n",
        "X %{",
        "X %",
        "X a b",
        "X {x}\r\n",
    ] {
        let error = parse_item(text.as_bytes()).unwrap_err();
        assert!(error.at <= text.len(), "{text}");
    }
}

#[test]
fn depth_and_fields_have_an_end() {
    let deep = |lists: usize| format!("X {}a{}", "(".repeat(lists), ")".repeat(lists));
    let wide = |fields: usize| format!("X (%({}))", "a 1 ".repeat(fields));
    for (within, beyond, what) in [
        (deep(DEPTH_MAX), deep(DEPTH_MAX + 1), "nested too deeply"),
        (deep(1), deep(100_000), "nested too deeply"),
        (wide(FIELDS_MAX), wide(FIELDS_MAX + 1), "too many fields"),
    ] {
        assert!(parse_item(within.as_bytes()).is_ok());
        assert_eq!(parse_item(beyond.as_bytes()).unwrap_err().what, what);
    }
}
