//! Tests against real Cyrus IMAP programs: a real mail server is replicated by the real
//! `sync_client` into the server under test and, side by side, into the real `backupd`, and the two
//! stores and the output of both sets of tools are compared.
//!
//! They need Debian 12's Cyrus 3.6 (`cyrus-imapd cyrus-replication sasl2-bin`) and root, or the
//! user `cyrus`, and say `SKIPPED` loudly without. Environment:
//!
//! * `CYRBK_REQUIRE_CYRUS=1`: a test that cannot run fails instead of being skipped.
//! * `CYRBK_INTEROP_SELFTEST=1`: puts the real `backupd` and tools in the place of cyrbk's, to
//!   prove the harness itself.
//! * `CYRBK_CYRUS_PREFIX=/opt/cyrus`: mail servers and `sync_client` are those of the installation
//!   below this directory, of another version; backupd and the real tools stay those of 3.6.
//! * `CYRBK_INTEROP_KEEP=1`: keeps the temporary directories.
#![allow(clippy::unwrap_used)]

mod backup_server;
mod cutter;
mod cyrus;
mod door_server;
mod imap;
mod index_rows;
#[path = "../machine/mod.rs"]
mod machine;
mod mail;
mod managesieve;
mod pair;
mod process;
mod raw_csync;
mod replica;
mod requests;
mod restore_scene;
mod site;
mod sync_client;
mod tools;
mod workspace;

mod test_client;
mod test_client_cut;
mod test_client_options;
mod test_damage;
mod test_displaced;
mod test_divided;
mod test_doors;
mod test_export;
mod test_groups;
mod test_grown;
mod test_large;
mod test_limits;
mod test_locks;
mod test_locks_waiting;
mod test_login;
mod test_lost_by_compact;
mod test_master_untouched;
mod test_moment;
mod test_move;
mod test_own_state;
mod test_probe;
mod test_random;
mod test_replication;
mod test_replies;
mod test_restore;
mod test_restore_cut;
mod test_restore_found;
mod test_restore_more;
mod test_restore_no_room;
mod test_restore_words;
mod test_sasldb;
mod test_tls;
mod test_xbackup;
