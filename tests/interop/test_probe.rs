//! How long a client waits before it gets to work.

use std::time::Duration;

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::site::{ADMIN, Channel, Site};

/// The real backupd lets a client with `sync_try_imap` (the default) run into its ten seconds'
/// timeout.
const REAL_DELAY: Duration = Duration::from_secs(9);
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn the_imap_probe_costs_no_time() {
    let Some(cyrus) = Cyrus::find_or_skip("the_imap_probe_costs_no_time") else {
        return;
    };
    let server = BackupServer::start(&cyrus, Maker::under_test(), &[]);
    let site = Site::start(&cyrus, &["tom"], &[Channel::new("tested", server.port, true)]);
    site.imap(ADMIN).create("user.tom");
    let run = site.sync("tested", &["-u", "tom"]).success();
    match server.maker {
        Maker::Cyrbk => assert!(run.output.elapsed < LIMIT, "{}", run.output),
        Maker::Cyrus => assert!(run.output.elapsed > REAL_DELAY, "{}", run.output),
    }
}
