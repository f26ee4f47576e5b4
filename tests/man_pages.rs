//! The manual says what the programs take: every option of `--help` and of the usage
//! texts stands in a page, and every page can be formatted.
#![allow(clippy::unwrap_used)]

mod machine;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn run(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cyrbk")).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

/// The text of a page without its macros' backslashes; nothing if there is no such page.
fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man").join(name);
    fs::read_to_string(path)
        .unwrap_or_default()
        .replace("\\-", "-")
        .replace("\\fB", " ")
        .replace("\\fR", " ")
}

/// `--words` and `-l`etters that begin a word.
fn options(text: &str) -> BTreeSet<String> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    let words = text.split(|c: char| ends(c) && c != '\\');
    let is_option = |word: &&str| {
        let name = word.trim_start_matches('-');
        let dashes = word.len() - name.len();
        dashes == 2 && name.len() > 1 || dashes == 1 && name.len() == 1
    };
    words.filter(is_option).map(str::to_owned).collect()
}

#[test]
fn every_option_of_cyrbk_is_in_the_manual() {
    let help = run(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands =
        commands.map_while(|line| line.trim().split(' ').next().filter(|w| !w.is_empty()));
    let mut missing = Vec::new();
    let main = page("cyrbk.8");
    for command in commands.filter(|command| *command != "help") {
        let own = page(&format!("cyrbk-{command}.8")) + &page(&format!("{command}.8"));
        let manual = main.clone() + &own;
        if !manual.contains(command) {
            missing.push(command.to_owned());
        }
        let known = options(&manual);
        let text = run(&[command, "--help"]);
        // Examples may name what belongs to other programs.
        let text = text.split("Examples:").next().unwrap();
        for option in options(text).difference(&known) {
            if option != "--help" && option != "-h" {
                missing.push(format!("{command} {option}"));
            }
        }
    }
    assert!(missing.is_empty(), "not in docs/man/cyrbk.8: {missing:?}");
}

#[test]
fn every_option_of_the_old_tools_is_in_the_manual() {
    for tool in ["ctl_backups", "cyr_backup"] {
        let known = options(&page(&format!("{tool}.8")));
        let usage = run(&[tool]);
        assert!(usage.starts_with("Usage:"), "{usage}");
        let missing: Vec<_> = options(&usage).difference(&known).cloned().collect();
        assert!(missing.is_empty(), "not in docs/man/{tool}.8: {missing:?}");
        let commands = usage.lines().filter_map(|line| line.strip_prefix("    "));
        let commands = commands.take_while(|line| !line.starts_with('-'));
        for command in commands.filter(|line| line.contains(" # ")) {
            let word = command.split(' ').next().unwrap();
            assert!(page(&format!("{tool}.8")).contains(word), "{tool} {word}");
        }
    }
}

#[test]
fn pages_have_their_parts_and_can_be_formatted() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man");
    let man = machine::program("man", "man-db");
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for part in [".TH ", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH EXIT STATUS\n"] {
            assert!(text.contains(part), "{}: {part}", path.display());
        }
        assert!(text.is_ascii(), "{}", path.display());
        if let Some(man) = &man {
            let mut man = Command::new(man);
            man.env("MANROFFSEQ", "").env("LC_ALL", "C").env("MANWIDTH", "100");
            let output = man.arg("--warnings").arg("-l").arg(&path).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            let faults: Vec<_> = said.lines().filter(|line| line.contains("macro")).collect();
            assert!(faults.is_empty(), "{}: {faults:?}", path.display());
        }
    }
}
