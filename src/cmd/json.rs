//! JSON in the form in which Cyrus's tools print it.
//!
//! Two blanks of indentation, keys in the order given, `/` and everything beyond
//! ASCII as it is. What JSON cannot hold is left out with its key: a string that is
//! not UTF-8, an absent value.

use std::io::{self, Write};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Json {
    Text(String),
    Integer(i64),
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    /// Text, unless it is not UTF-8.
    pub(super) fn octets(octets: &[u8]) -> Option<Json> {
        std::str::from_utf8(octets).ok().map(|text| Json::Text(text.to_owned()))
    }

    /// The fields that have a value.
    pub(super) fn object<const N: usize>(fields: [(&'static str, Option<Json>); N]) -> Json {
        let present = fields.into_iter().filter_map(|(key, value)| Some((key, value?)));
        Json::Object(present.collect())
    }

    /// Writes the value and a line end.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_at(0, out)?;
        out.write_all(b"\n")
    }

    fn write_at(&self, depth: usize, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Json::Text(text) => write_text(text, out),
            Json::Integer(number) => write!(out, "{number}"),
            Json::Object(fields) if fields.is_empty() => out.write_all(b"{}"),
            Json::Object(fields) => {
                let mut before = "{";
                for (key, value) in fields {
                    write!(out, "{before}\n{:1$}", "", 2 * (depth + 1))?;
                    write_text(key, out)?;
                    out.write_all(b": ")?;
                    value.write_at(depth + 1, out)?;
                    before = ",";
                }
                write!(out, "\n{:1$}}}", "", 2 * depth)
            }
        }
    }
}

fn write_text(text: &str, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"\"")?;
    for c in text.chars() {
        match c {
            '"' => out.write_all(b"\\\"")?,
            '\\' => out.write_all(b"\\\\")?,
            '\u{8}' => out.write_all(b"\\b")?,
            '\u{c}' => out.write_all(b"\\f")?,
            '\n' => out.write_all(b"\\n")?,
            '\r' => out.write_all(b"\\r")?,
            '\t' => out.write_all(b"\\t")?,
            c if c < ' ' => write!(out, "\\u{:04X}", u32::from(c))?,
            c => write!(out, "{c}")?,
        }
    }
    out.write_all(b"\"")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn print(json: &Json) -> String {
        let mut out = Vec::new();
        json.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn objects_leave_out_what_they_cannot_hold() {
        let json = Json::object([
            ("userid", Json::octets(b"\xff")),
            ("fname", Json::octets(b"/a \"b\"\\\x01\t\xc3\xa9")),
            ("size", Some(Json::Integer(-5))),
            ("inner", Some(Json::object([("a", Some(Json::Integer(1))), ("b", None)]))),
            ("none", Some(Json::Object(vec![]))),
        ]);
        let expected = "{\n  \"fname\": \"/a \\\"b\\\"\\\\\\u0001\\t\u{e9}\",\n  \"size\": -5,\n  \
                        \"inner\": {\n    \"a\": 1\n  },\n  \"none\": {}\n}\n";
        assert_eq!(print(&json), expected);
    }
}
