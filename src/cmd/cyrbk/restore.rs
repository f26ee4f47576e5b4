//! The words of `cyrbk restore`: a request of `restore`.

use std::ffi::OsString;
use std::num::NonZero;

use clap::{ArgGroup, Args};

use super::select::ConfigArg;
use crate::cmd::Mode;
use crate::cmd::restore::{Options, Words};
use crate::restore::{Expunged, Parts};

#[derive(Debug, Args)]
#[command(override_usage = "\
cyrbk restore [OPTIONS] SERVER BACKUP OBJECT...
       cyrbk restore [OPTIONS] SERVER BACKUP --all | --objects-from FILE
       cyrbk restore [OPTIONS] SERVER --all-users")]
#[command(after_help = "\
Examples:
  cyrbk restore mail.example.com alice --all --keep-ids
  cyrbk restore mail.example.com alice --all --dry-run
  cyrbk restore mail.example.com alice user/alice/Work --only-expunged
  cyrbk restore mail.example.com alice 84976990f3bc08fb48037b36fcc15832f019d92d
  cyrbk restore mail.example.com alice user/alice --at '2026-11-20 12:00'
  cyrbk restore mail.example.com --all-users --keep-ids --jobs 8
  cyrbk search alice --subject invoice --guids | cyrbk restore mail.example.com alice -F -
  cyrbk restore '[2001:db8::1]:2005' alice --all --only sieve,subscriptions

SERVER is a host, host:port, [IPv6 address]:port or the path of a Unix socket, with /tls
behind it if it must be TLS. Name and password: sync_authname and sync_password of the
configuration (or restore_sync_..., or those of --channel), or CYRBK_SYNC_AUTHNAME and
CYRBK_SYNC_PASSWORD of the environment.

The same command again restores what is missing and nothing twice: that is also how a
restore that was cut off goes on.")]
#[command(group = ArgGroup::new("what").args(["objects", "all", "file_of_objects", "all_users"])
    .required(true))]
#[command(group = ArgGroup::new("kept").args(["keep_ids"])
    .conflicts_with_all(["into", "partition", "acl"]))]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The mail server
    #[arg(value_name = "SERVER")]
    server: OsString,
    /// A userid, unless an option says otherwise
    #[arg(value_name = "BACKUP", required_unless_present = "all_users")]
    backup: Option<OsString>,
    /// Mailboxes by name or unique id, messages by GUID
    #[arg(value_name = "OBJECT")]
    objects: Vec<OsString>,
    /// BACKUP is a data file
    #[arg(long, group = "mode")]
    file: bool,
    /// BACKUP is a mailbox
    #[arg(long, group = "mode")]
    mailbox: bool,
    /// Everything of every backup
    #[arg(long, group = "mode", conflicts_with = "backup")]
    all_users: bool,
    /// All mailboxes that the mail server had last, and what belongs to the user
    #[arg(long)]
    all: bool,
    /// With --all and --all-users: mailboxes too that had been deleted
    #[arg(long)]
    with_deleted: bool,
    /// Objects from a file, one on each line; `-`: standard input
    #[arg(short = 'F', long = "objects-from", value_name = "FILE", id = "file_of_objects")]
    objects_from: Option<OsString>,
    /// As it was at that moment: `YYYY-MM-DD HH:MM[:SS]`, local unless a zone follows
    #[arg(long, value_name = "TIME", value_parser = crate::cmd::time::moment)]
    at: Option<i64>,
    /// Mailboxes below those named, too
    #[arg(short, long)]
    recursive: bool,
    /// Keep unique ids, UIDVALIDITY, UIDs and modification sequences of what is created
    #[arg(short = 'U', long)]
    keep_ids: bool,
    /// Deleted mailboxes keep the names that they have had since
    #[arg(long)]
    keep_deleted_names: bool,
    /// Leave out messages that were expunged
    #[arg(long, group = "expunged")]
    skip_expunged: bool,
    /// Bring messages back to sight that were expunged, and nothing else
    #[arg(long, group = "expunged")]
    only_expunged: bool,
    /// Put everything into this mailbox
    #[arg(long, value_name = "MAILBOX")]
    into: Option<OsString>,
    /// Partition of the mail server for mailboxes that are created
    #[arg(long)]
    partition: Option<OsString>,
    /// Access rights of mailboxes that are created, in internal form; empty: the parent's
    #[arg(long)]
    acl: Option<OsString>,
    /// Do not tell other servers of a murder
    #[arg(long)]
    local_only: bool,
    /// Restore nothing but: mail annotations subscriptions seen sieve quota server
    #[arg(long, value_name = "WORDS", value_parser = Parts::parse)]
    only: Option<Parts>,
    /// Do not restore these
    #[arg(long, value_name = "WORDS", value_parser = Parts::parse)]
    without: Option<Parts>,
    /// Replace scripts, limits and annotations that are there
    #[arg(long)]
    replace: bool,
    /// Restore once more what is there already
    #[arg(long)]
    duplicates: bool,
    /// Only say what would be done, and do not connect
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Compress, or do not connect
    #[arg(short = 'z', long)]
    require_compression: bool,
    /// Take NAME_sync_authname and the like from the configuration
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// Wait for a locked backup
    #[arg(long)]
    wait: bool,
    /// With --all-users: so many backups at a time [default: the cores]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Say less: only what was not restored
    #[arg(short, long)]
    quiet: bool,
    /// JSON instead of text, an object for each backup
    #[arg(long)]
    json: bool,
}

impl From<RestoreArgs> for Options {
    fn from(args: RestoreArgs) -> Options {
        let whole = if args.with_deleted { Words::All } else { Words::Living };
        let what = match (args.objects_from, args.objects) {
            (Some(file), _) => Words::File(file),
            (None, objects) if !objects.is_empty() => Words::Objects(objects),
            _ => whole,
        };
        let usual = match what {
            Words::All | Words::Living if args.into.is_none() => Parts::all(),
            _ => Parts::mailboxes(),
        };
        let parts = args.only.unwrap_or(usual).without(&args.without.unwrap_or_default());
        Options {
            config: Some(args.config.config),
            mode: match (args.all_users, args.file, args.mailbox) {
                (true, _, _) => Mode::All,
                (_, true, _) => Mode::Files,
                (_, _, true) => Mode::MailboxesOfEitherName,
                _ => Mode::Userids,
            },
            recursive: args.recursive,
            expunged: match (args.skip_expunged, args.only_expunged) {
                (true, _) => Expunged::Without,
                (_, true) => Expunged::Only,
                _ => Expunged::AsTheyAre,
            },
            keep_ids: args.keep_ids,
            keep_deleted_names: args.keep_deleted_names,
            into: args.into,
            partition: args.partition,
            acl: args.acl,
            local_only: args.local_only,
            dry_run: args.dry_run,
            compression: args.require_compression,
            duplicates: args.duplicates,
            replace: args.replace,
            parts: Some(parts),
            channel: args.channel,
            wait: args.wait,
            jobs: args.jobs,
            at: args.at,
            tell: !args.quiet,
            json: args.json,
            own_words: true,
            ..Options::new(args.server, args.backup.unwrap_or_default(), what)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Command, Words as Cyrbk};
    use super::*;
    use crate::restore::Part;
    use clap::Parser;

    fn parse(line: &str) -> Result<Options, String> {
        let words = Cyrbk::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        let Command::Restore(args) = words.command else { panic!("{line}") };
        Ok((*args).into())
    }

    #[test]
    fn words_become_a_request_of_restore() {
        let options = parse("cyrbk restore host alice --all -U").unwrap();
        assert_eq!((options.what, options.mode), (Words::Living, Mode::Userids));
        assert!(options.keep_ids && options.tell && options.parts.unwrap().has(Part::Sieve));
        let options = parse("cyrbk restore host alice user/alice x --only-expunged").unwrap();
        assert_eq!(options.what, Words::Objects(vec!["user/alice".into(), "x".into()]));
        assert_eq!(options.expunged, Expunged::Only);
        assert!(!options.parts.unwrap().has(Part::Sieve));
        assert_eq!(parse("cyrbk restore host alice -F -").unwrap().what, Words::File("-".into()));
        assert!(parse("cyrbk restore host alice --all --json").unwrap().json);
        let options = parse("cyrbk restore host --all-users --jobs 3 --with-deleted").unwrap();
        assert_eq!((options.mode, options.what), (Mode::All, Words::All));
        let options = parse("cyrbk restore host alice --all --without sieve,seen").unwrap();
        let parts = options.parts.unwrap();
        assert!(parts.has(Part::Quota) && !parts.has(Part::Sieve));
    }

    #[test]
    fn misuse() {
        for line in [
            "cyrbk restore",
            "cyrbk restore host",
            "cyrbk restore host alice",
            "cyrbk restore host alice --all x",
            "cyrbk restore host alice --all-users",
            "cyrbk restore host alice --all -U --into user.x",
            "cyrbk restore host alice --all --skip-expunged --only-expunged",
            "cyrbk restore host alice --all --only rubbish",
            "cyrbk restore host alice --all --file --mailbox",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
