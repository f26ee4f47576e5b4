//! How a server ends that cannot start.

use std::fs;
use std::path::Path;

use crate::site::{Ran, Site, wait};

/// `EX_CONFIG` of `sysexits.h`.
const CONFIG: i32 = 78;

fn serve(site: &Site) -> Ran {
    serve_with(site, &[])
}

fn serve_with(site: &Site, words: &[&str]) -> Ran {
    let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
    command.arg("serve").arg("-C").arg(site.conf()).args(words);
    wait(command)
}

/// One session on an empty standard input; what is wrong goes to the log.
fn backupd(site: &Site, words: &[&str]) -> i32 {
    let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
    command.env("CYRUS_SERVICE", "backupd").env("CYRUS_ID", "1");
    command.args(["backupd", "-X", "-C"]).arg(site.conf()).args(words);
    wait(command).code
}

#[test]
fn a_configuration_that_makes_no_sense_has_one_status() {
    let site = Site::empty();
    let top = site.path().display().to_string();
    for (lines, said) in [
        ("backup_db: skiplist\n", "backup_db: only twoskip is supported"),
        ("cyrbk_listen: 2005\n", "cyrbk_listen: 2005: not an address to listen on"),
        ("cyrbk_tls_listen: 2005\n", "cyrbk_tls_listen: 2005: not an address to listen on"),
        ("cyrbk_listen: TOP/s\ntls_server_cert: /nonexistent\n", "TLS: /nonexistent: "),
        // Nobody new is taken, which is no reason to stop.
        ("partition_select_exclude: one two\ncyrbk_listen: 2005\n", "cyrbk_listen: 2005: not"),
    ] {
        site.configure(&lines.replace("TOP", &top));
        let ran = serve(&site);
        let err = ran.err_text();
        assert_eq!(ran.code, CONFIG, "{lines}: {err}");
        assert!(err.contains(&format!("fatal error: {said}")), "{lines}: {err}");
    }
    site.configure("cyrbk_listen: name.invalid:2005\n");
    let unknown = serve(&site);
    // Somebody may know it later.
    assert_eq!(unknown.code, 75, "{}", unknown.err_text());
    site.configure("");
    fs::remove_dir(site.path().join("conf")).unwrap();
    let ran = serve(&site);
    assert_eq!(ran.code, CONFIG, "{}", ran.err_text());
    assert!(ran.err_text().contains("is no directory; to make it: "), "{}", ran.err_text());
}

#[test]
fn backupd_has_it_too() {
    let site = Site::empty();
    assert_eq!(backupd(&site, &[]), 0);
    site.configure("backup_db: skiplist\n");
    assert_eq!(backupd(&site, &[]), CONFIG);
}

/// What Cyrus's backupd does not look at does not stop a site that has it.
#[test]
fn backupd_goes_on_where_cyrus_does() {
    let site = Site::empty();
    for lines in [
        "partition_select_exclude: one,two\n",
        "tls_server_cert: /nonexistent\n",
        "tls_server_cert: /nonexistent,/neither\ntls_server_key: /key,/other\n",
        "tls_client_certs: no\ntls_require_cert: False\n",
    ] {
        site.configure(lines);
        assert_eq!(backupd(&site, &[]), 0, "{lines}");
    }
    // Not in the clear where TLS was asked for.
    site.configure("tls_server_cert: /nonexistent\n");
    assert_eq!(backupd(&site, &["-s"]), CONFIG);
}

#[test]
fn words_that_make_no_sense_are_not_the_configurations_fault() {
    let site = Site::empty();
    for (words, said) in [
        (["--listen", "2005"], "--listen: 2005: not an address"),
        (["--tls-listen", "x"], "--tls-listen: x: not an address"),
    ] {
        let ran = serve_with(&site, &words);
        let err = ran.err_text();
        assert_eq!(ran.code, 64, "{err}");
        assert!(err.contains(&format!("fatal error: {said}")), "{err}");
    }
    if nix::unistd::geteuid().is_root() {
        let socket = site.path().join("s");
        let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
        command.env("CYRUS_USER", "nobody-of-this-name").args(["serve", "-C"]).arg(site.conf());
        let ran = wait({
            command.arg("--listen").arg(socket);
            command
        });
        assert_eq!(ran.code, 64, "{}", ran.err_text());
    }
}
