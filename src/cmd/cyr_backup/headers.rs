//! The header of a message, as text and as fields.
//!
//! ```text
//! message = *( name ":" value EOL *( WSP text EOL ) ) [ EOL body ]     EOL: [CR] LF
//! ```

use std::collections::HashMap;

/// The header lines as they stand, with their last line end; nothing unless an empty
/// line that ends in CR LF follows.
pub(super) fn block(message: &[u8]) -> &[u8] {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n");
    end.map_or(&[], |end| &message[..end + 2])
}

/// A header field: all its values.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Vec<u8>,
    pub(super) values: Vec<Vec<u8>>,
}

/// Fields in the order of their first appearance. Names that differ in case are two.
/// Values are unfolded; white space in front of them goes, behind them it stays.
pub(super) fn fields(message: &[u8]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    let mut at_name: HashMap<Vec<u8>, usize> = HashMap::new();
    // Where the last value is.
    let mut last: Option<usize> = None;
    for line in message.split_inclusive(|&c| c == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        if line[0] == b' ' || line[0] == b'\t' {
            let value = last.and_then(|i| fields[i].values.last_mut());
            if let Some(value) = value {
                value.extend_from_slice(line);
            }
            continue;
        }
        let Some(colon) = line.iter().position(|&c| c == b':') else {
            last = None;
            continue;
        };
        let name = line[..colon].to_vec();
        let i = *at_name.entry(name.clone()).or_insert_with(|| {
            fields.push(Field { name, values: Vec::new() });
            fields.len() - 1
        });
        fields[i].values.push(line[colon + 1..].to_vec());
        last = Some(i);
    }
    for value in fields.iter_mut().flat_map(|field| &mut field.values) {
        *value = value.trim_ascii_start().to_vec();
    }
    fields
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(message: &str) -> String {
        let field = |field: Field| {
            let values: Vec<_> =
                field.values.iter().map(|value| String::from_utf8_lossy(value)).collect();
            format!("{}={}", String::from_utf8_lossy(&field.name), values.join("|"))
        };
        fields(message.as_bytes()).into_iter().map(field).collect::<Vec<_>>().join(";")
    }

    #[test]
    fn the_block_ends_at_an_empty_line_with_cr() {
        assert_eq!(block(b"A: 1\r\nB: 2\r\n\r\nbody\r\n\r\n"), b"A: 1\r\nB: 2\r\n");
        assert_eq!(block(b"A: 1\nB: 2\n\nbody"), b"");
        assert_eq!(block(b"A: 1\r\nB: 2\r\n"), b"");
    }

    #[test]
    fn fields_are_unfolded_and_gathered() {
        let message = "A: one\r\n two\r\n\tthree \r\na: x\r\nB:\r\nA:2\r\nno colon\r\n \
                       lost\r\nC: last\r\n\r\nD: body\r\n";
        assert_eq!(text(message), "A=one two\tthree |2;a=x;B=;C=last");
        assert_eq!(text("A: bare\nB: lines\n folded"), "A=bare;B=lines folded");
        assert_eq!(text("\r\nA: body\r\n"), "");
        assert_eq!(text(""), "");
    }
}
