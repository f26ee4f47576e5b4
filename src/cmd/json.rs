//! JSON in the form in which Cyrus's tools print it.
//!
//! Two blanks of indentation, keys in the order given, `/` and everything beyond
//! ASCII as it is. What JSON cannot hold is left out with its key: a string that is
//! not UTF-8, an absent value.

use std::borrow::Cow;
use std::io::{self, Write};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Text(String),
    Integer(i64),
    Real(f64),
    Array(Vec<Json>),
    Object(Vec<(Cow<'static, str>, Json)>),
}

impl Json {
    /// Text, unless it is not UTF-8.
    pub(super) fn octets(octets: &[u8]) -> Option<Json> {
        std::str::from_utf8(octets).ok().map(|text| Json::Text(text.to_owned()))
    }

    /// A number, unless it is none.
    pub(super) fn real(number: f64) -> Option<Json> {
        number.is_finite().then_some(Json::Real(number))
    }

    /// The fields that have a value.
    pub(super) fn object<const N: usize>(fields: [(&'static str, Option<Json>); N]) -> Json {
        let present = fields.into_iter().filter_map(|(key, value)| Some((key.into(), value?)));
        Json::Object(present.collect())
    }

    /// Adds a field to an object; nothing to anything else.
    pub(super) fn push(&mut self, key: &'static str, value: Json) {
        if let Json::Object(fields) = self {
            fields.push((key.into(), value));
        }
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
            Json::Real(number) => out.write_all(real_text(*number).as_bytes()),
            Json::Array(items) if items.is_empty() => out.write_all(b"[]"),
            Json::Array(items) => {
                let mut before = "[";
                for item in items {
                    write!(out, "{before}\n{:1$}", "", 2 * (depth + 1))?;
                    item.write_at(depth + 1, out)?;
                    before = ",";
                }
                write!(out, "\n{:1$}]", "", 2 * depth)
            }
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

/// 17 significant digits without trailing zeros, as C's `%.17g`; `.0` behind what
/// would look like an integer.
fn real_text(number: f64) -> String {
    let scientific = format!("{number:.16e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..17).contains(&exponent) {
        return format!("{}e{exponent}", without_zeros(digits));
    }
    let fixed = format!("{number:.*}", (16 - exponent) as usize);
    let text = without_zeros(&fixed);
    if text.contains('.') { text.to_owned() } else { format!("{text}.0") }
}

fn without_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
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
    fn reals_as_c_prints_them() {
        for (number, text) in [
            (100.0 * 5676.0 / 11796.0, "48.118006103763989"),
            (100.0, "100.0"),
            (0.0, "0.0"),
            (100.0 * 55.0 / 29.0, "189.65517241379311"),
            (0.1, "0.10000000000000001"),
            (1e300, "1.0000000000000001e300"),
            (1.5e-7, "1.4999999999999999e-7"),
        ] {
            assert_eq!(real_text(number), text);
        }
        assert_eq!(Json::real(f64::NAN), None);
    }

    #[test]
    fn arrays() {
        let items = vec![Json::Integer(1), Json::Array(vec![]), Json::Array(vec![Json::Real(2.0)])];
        assert_eq!(print(&Json::Array(items)), "[\n  1,\n  [],\n  [\n    2.0\n  ]\n]\n");
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
