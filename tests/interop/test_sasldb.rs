//! An existing site's secrets, and nothing else: `sasldb2` as `saslpasswd2` makes it.

use crate::cyrus::Cyrus;
use crate::door_server::{DoorSetup, ask, assert_replicates, banner};
use crate::managesieve::sasl_plain;
use crate::site::{ADMIN, PASSWORD, add_account, add_account_of};

#[test]
fn the_real_client_logs_in_with_the_secrets_of_the_site() {
    let Some(cyrus) = Cyrus::find_or_skip("the_real_client_logs_in_with_the_secrets_of_the_site")
    else {
        return;
    };
    for mech in ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"] {
        let list = format!("sasl_mech_list: {mech}");
        let setup = DoorSetup::new(&cyrus, &[&list]).without_password_file();
        add_account(&setup.workspace, ADMIN);
        let (_service, port) = setup.serve(&[]);
        assert_replicates(&cyrus, port, &[]);
        let line = format!("login: [127.0.0.1] admin {mech} User logged in");
        assert!(setup.log().contains(&line), "{}", setup.log());
    }
}

/// Who gets in, and who is an administrator then, is what the real backupd says.
#[test]
fn realms_are_those_of_cyrus() {
    let Some(cyrus) = Cyrus::find_or_skip("realms_are_those_of_cyrus") else { return };
    let (own, other) = ("interop.example.test", "other.example.test");
    let names = [
        ADMIN.to_owned(),
        ADMIN.to_uppercase(),
        format!("{ADMIN}@{own}"),
        format!("{ADMIN}@{other}"),
        format!("{ADMIN}@{}", other.to_uppercase()),
        format!("{ADMIN}@nowhere.example.test"),
        format!("{ADMIN}%{other}"),
        "tom".to_owned(),
        "nobody".to_owned(),
    ];
    for changes in [
        &[][..],
        &["servername: Interop.Example.TEST"],
        &["loginrealms: other.example.test"],
        &["virtdomains: userid"],
        &["virtdomains: userid", "defaultdomain: other.example.test"],
        &["virtdomains: userid", "loginrealms: other.example.test interop.example.test"],
        &["admins: admin@other.example.test", "virtdomains: userid"],
        &["admins: admin@other.example.test", "loginrealms: other.example.test"],
    ] {
        let setup = DoorSetup::new(&cyrus, changes).without_password_file();
        for (user, realm, password) in [
            (ADMIN, own, PASSWORD),
            ("tom", own, PASSWORD),
            (ADMIN, other, "of-the-other"),
            (ADMIN, "nowhere.example.test", "of-nowhere"),
        ] {
            add_account_of(&setup.workspace, user, realm, password);
        }
        let try_all = |port: u16| {
            let mut replies = Vec::new();
            for name in &names {
                for password in [PASSWORD, "of-the-other", "of-nowhere"] {
                    let (_, mut stream) = banner(port);
                    let login = format!("AUTHENTICATE PLAIN {}", sasl_plain(name, password));
                    let verdict = ask(&mut stream, &login).starts_with("OK");
                    let next = ask(&mut stream, "NOOP");
                    replies.push(format!("{name} {password} {verdict} {next}"));
                }
            }
            replies
        };
        let expected = {
            let (_master, port) = setup.master_of(&cyrus, "backupd", "");
            try_all(port)
        };
        let (_service, port) = setup.serve(&[]);
        let found = try_all(port);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{changes:?}\n{}", setup.log());
        }
        assert!(
            found.iter().any(|reply| reply.ends_with(" true OK Noop completed\r\n")),
            "{found:?}"
        );
    }
}
