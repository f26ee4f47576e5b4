//! The text of a stored sieve script.

use super::disk::Disk;
use super::index::{RestartPoint, SieveRow};
use super::log::{LogError, LogReader, NoBodies};
use crate::wire::apply::Apply;

/// Reads a script from the chunk whose member begins at `offset_file` of `data`, and that has
/// these restart points. `None` if
/// the row is wrong about its place.
pub fn read(
    data: &dyn Disk,
    offset_file: u64,
    points: Vec<RestartPoint>,
    row: &SieveRow,
) -> Result<Option<Vec<u8>>, LogError> {
    // The nearest is a hint, and the only way behind damage.
    let near = points.into_iter().rfind(|point| point.offset_plain <= row.offset);
    match near.map(|near| read_from(data, offset_file, Some(near), row)) {
        Some(Ok(Some(text))) => Ok(Some(text)),
        _ => read_from(data, offset_file, None, row),
    }
}

fn read_from(
    data: &dyn Disk,
    offset_file: u64,
    point: Option<RestartPoint>,
    row: &SieveRow,
) -> Result<Option<Vec<u8>>, LogError> {
    let mut reader = LogReader::open_near(data, offset_file, point)?;
    while let Some(line) = reader.next_line(&mut NoBodies)? {
        if line.offset < row.offset {
            continue;
        }
        let (name, value) = line.item()?;
        return Ok(match Apply::read(&name, &value) {
            Ok(Apply::Sieve(sieve)) if sieve.script.filename == row.filename => Some(sieve.content),
            _ => None,
        });
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use sha1::{Digest, Sha1};

    use super::*;
    use crate::store::index::{Index, Open};
    use crate::wire::Guid;

    #[test]
    fn scripts_are_what_their_guids_say() {
        let mut count = 0;
        for name in ["one/a/alice_EPfRmx", "two/t/tester_ygQSHr", "one/c/carol_cesxQB"] {
            let dir = tempfile::tempdir().unwrap();
            let source = format!("tests/fixtures/backups/main/{name}");
            let copy = dir.path().join("index");
            std::fs::copy(format!("{source}.index"), &copy).unwrap();
            let index = Index::open(&copy, Open::Read).unwrap();
            let data = std::fs::File::open(&source).unwrap();
            for row in index.sieve_scripts().unwrap() {
                let chunk = index.chunk(row.chunk_id).unwrap().unwrap();
                let text = read(&data, chunk.offset, Vec::new(), &row).unwrap().unwrap();
                let guid = Guid::from(<[u8; 20]>::from(Sha1::digest(&text)));
                assert_eq!(guid.to_string(), row.guid);
                let misled = SieveRow { filename: b"other.script".to_vec(), ..row };
                assert_eq!(read(&data, chunk.offset, Vec::new(), &misled).unwrap(), None);
                count += 1;
            }
        }
        assert!(count > 0);
    }
}
