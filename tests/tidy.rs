//! The house rules that a machine can see: who may import whom, a header on every
//! file, plain ASCII, lines of at most 100 columns, one number for one quirk.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Layer, and the layers it may import from. `docs/architecture.md` says why.
const ARROWS: [(&str, &[&str]); 10] = [
    ("wire", &["wire"]),
    ("config", &["config"]),
    ("lock", &["lock"]),
    ("store", &["store", "lock", "wire"]),
    ("sync/auth", &["sync/auth", "lock"]),
    ("sync/client", &["sync", "sync/client", "wire"]),
    ("sync/server", &["sync", "sync/auth", "sync/server", "store", "wire"]),
    ("sync", &["sync", "sync/auth", "wire"]),
    ("restore", &["restore", "store", "lock", "sync/client", "wire"]),
    (
        "cmd",
        &[
            "cmd",
            "config",
            "lock",
            "restore",
            "store",
            "sync",
            "sync/auth",
            "sync/client",
            "sync/server",
            "wire",
        ],
    ),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return files };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn all_files() -> Vec<PathBuf> {
    ["src", "tests", "examples", "benches"]
        .iter()
        .flat_map(|dir| rust_files(&root().join(dir)))
        .collect()
}

/// The layer of a path such as `sync/auth/policy.rs` or `sync::auth::Policy`.
fn layer(path: &str) -> &'static str {
    let is_in = |layer: &str| {
        path.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
    };
    ARROWS.iter().map(|(layer, _)| *layer).find(|layer| is_in(layer)).unwrap_or("")
}

#[test]
fn arrows_point_down_only() {
    let source = root().join("src");
    let mut bad = Vec::new();
    for file in rust_files(&source) {
        let name = file.strip_prefix(&source).unwrap().display().to_string();
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == layer(&name)) else {
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for (at, found) in line.match_indices("crate::") {
                let path: String = line[at + found.len()..]
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':'))
                    .collect();
                let to = layer(&path.replace("::", "/"));
                if !to.is_empty() && !allowed.contains(&to) {
                    bad.push(format!("{name}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    assert!(bad.is_empty(), "imports against docs/architecture.md:\n{}", bad.join("\n"));
}

#[test]
fn the_arrow_check_sees_what_it_should() {
    assert_eq!(layer("sync/auth/policy.rs"), "sync/auth");
    assert_eq!(layer("sync/session.rs"), "sync");
    assert_eq!(layer("store.rs"), "store");
    assert_eq!(layer("sync/server/lease.rs"), "sync/server");
    assert_eq!(layer("storefront"), "");
}

#[test]
fn files_are_plain() {
    let mut bad = Vec::new();
    for file in all_files() {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.display();
        if !text.starts_with("//!") {
            bad.push(format!("{name}: no //! header"));
        }
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > 100 {
                bad.push(format!("{name}:{}: longer than 100 columns", number + 1));
            }
            if !line.is_ascii() {
                bad.push(format!("{name}:{}: not ASCII", number + 1));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_quirk_has_a_number_of_its_own() {
    let text = fs::read_to_string(root().join("docs/quirks.md")).unwrap();
    let numbers = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    let mut numbers: Vec<u32> = numbers.filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.len() > 50, "rows are not found");
    numbers.sort_unstable();
    let twice: Vec<_> = numbers.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "used twice: {twice:?}");
}
