//! `restore`: from backups to a mail server.
//!
//! Both faces, Cyrus's `restore` and `cyrbk restore`, fill in the same request. This file
//! opens the backups and goes through them; what is said is in `words`.

mod connect;
mod json;
pub(super) mod options;
mod progress;
mod words;

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use options::{Options, Words};

use super::ctl_backups::progress::{Progress, Tally};
use super::ctl_backups::{Outcome, bulk};
use super::report::{store_error_in_full, write_damages, write_labelled};
use super::select::{Selected, Target, select};
use super::startup::{self, DEFAULT_CONFIG};
use super::{Exit, Mode, Stop, Streams, mailbox_name, moment, site};
use crate::config::Settings;
use crate::lock::Wait;
use crate::restore::{self, Job, Object, Plan, Report, Request, View, What};
use crate::store::{Backup, StoreError};
use crate::sync::client::{Client, Options as ClientOptions};
use crate::wire::dlist::lossy;
use crate::wire::mboxname::{NameRules, SHARED};

/// Name of the tool, and prefix of its options in the configuration.
const NAME: &str = "restore";
/// How often a connection that broke is made again, as long as something arrives each time.
const RECONNECTS_MAX: u32 = 5;
/// How long to wait before that.
const RECONNECT_PAUSE: Duration = Duration::from_secs(2);

/// Runs `restore` with these words, the first of which is its name as given.
pub(super) fn main(args: &[OsString], streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    match options::parse(args.get(1..).unwrap_or_default()) {
        Ok(options) => run(&options, streams),
        Err(options::Misuse::Words) => {
            streams.err.write_all(options::USAGE.as_bytes())?;
            Ok(Exit::Usage)
        }
        Err(options::Misuse::Value(text)) => {
            write_labelled(streams.err, NAME.as_bytes(), &text)?;
            Ok(Exit::Usage)
        }
    }
}

/// Carries out a request.
pub(super) fn run(options: &Options, streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    if options.delay > 0 {
        writeln!(streams.err, "Waiting for {} seconds for gdb attach...", options.delay)?;
        std::thread::sleep(Duration::from_secs(options.delay));
    }
    // As Cyrus's user one may not be able to read it any more.
    let channel = channel(options, streams)?;
    let settings = startup::start(NAME, options.config.as_deref(), streams)?;
    let rules = site::name_rules(&settings);
    let what = match what(options, &settings) {
        Ok(what) => what,
        Err(error) => {
            writeln!(streams.err, "{error}")?;
            return Ok(Exit::TempFail);
        }
    };
    let client = match connect::client_options(options, channel.as_ref().unwrap_or(&settings)) {
        Ok(client) => client,
        Err(error) => {
            writeln!(streams.err, "{error}")?;
            return Ok(Exit::TempFail);
        }
    };
    let into = match into(options, &settings) {
        Ok(into) => into,
        Err(text) => {
            writeln!(streams.err, "{text}")?;
            return Ok(Exit::TempFail);
        }
    };
    let request = request(options, what, into);
    let errand = Errand { options, settings: &settings, rules: &rules, request: &request, client };
    match options.mode {
        Mode::All | Mode::Prefixes | Mode::Domains => errand.restore_many(streams),
        _ => errand.restore_one(streams),
    }
}

/// The options of `--channel`. What is wrong with them has been printed.
fn channel(options: &Options, streams: &mut Streams<'_>) -> Result<Option<Settings>, Stop> {
    let Some(name) = &options.channel else { return Ok(None) };
    let config = options.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
    match Settings::load(config, name) {
        Ok(settings) => Ok(Some(settings)),
        Err(error) => Err(startup::fatal(NAME, &error, Exit::Config, streams)?),
    }
}

/// The internal name of the mailbox that everything goes into. By the words of Cyrus it is typed
/// as such; with a slash it is none.
fn into(options: &Options, settings: &Settings) -> Result<Option<Vec<u8>>, String> {
    let Some(into) = &options.into else { return Ok(None) };
    if !into.as_bytes().contains(&b'/') {
        return Ok(Some(into.as_bytes().to_vec()));
    }
    let name = mailbox_name::internal(&settings.names, into.as_bytes());
    if options.own_words && !name.is_empty() {
        return Ok(Some(name));
    }
    Err(format!("{}: not an internal name, such as user.alice.Rescue", into.display()))
}

fn request(options: &Options, what: What, into: Option<Vec<u8>>) -> Request {
    let octets = |text: &Option<OsString>| text.as_ref().map(|text| text.as_bytes().to_vec());
    Request {
        recursive: options.recursive,
        expunged: options.expunged,
        keep_ids: options.keep_ids,
        keep_deleted_names: options.keep_deleted_names,
        into,
        partition: octets(&options.partition),
        acl: octets(&options.acl),
        local_only: options.local_only,
        duplicates: options.duplicates,
        parts: match (&options.parts, &options.into) {
            (Some(parts), _) => parts.clone(),
            (None, Some(_)) => restore::Parts::mailboxes(),
            (None, None) => options::usual_parts(&options.what),
        },
        replace: options.replace,
        ..Request::new(what)
    }
}

/// What the words mean. A file that cannot be read is an error.
fn what(options: &Options, settings: &Settings) -> Result<What, String> {
    let object = |operand: &[u8]| {
        Object::parse(operand, |name| mailbox_name::internal(&settings.names, name))
    };
    Ok(match &options.what {
        Words::All => What::All,
        Words::Living => What::Living,
        Words::Objects(operands) => {
            What::Objects(operands.iter().map(|operand| object(operand.as_bytes())).collect())
        }
        Words::File(file) => {
            let lines = read_lines(file)
                .map_err(|error| format!("fopen {}: {}", file.display(), in_words_of_c(&error)))?;
            // To Cyrus this is no error. Behind a pipe it mostly is one: nothing was found.
            if lines.is_empty() && options.own_words {
                return Err(format!("{}: no object is in there", file.display()));
            }
            What::Objects(lines.iter().map(|line| object(line)).collect())
        }
    })
}

fn in_words_of_c(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}

/// One object on each line, with either line end; empty lines and comments do not count.
fn read_lines(file: &OsString) -> io::Result<Vec<Vec<u8>>> {
    let mut reader: Box<dyn BufRead> = if file == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(io::BufReader::new(std::fs::File::open(file)?))
    };
    let mut lines = Vec::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if !text.is_empty() && !text.starts_with(b"#") {
            lines.push(text.to_vec());
        }
        line.clear();
    }
    Ok(lines)
}

/// Everything that is the same for all backups of a run.
struct Errand<'e> {
    options: &'e Options,
    settings: &'e Settings,
    rules: &'e NameRules,
    request: &'e Request,
    client: ClientOptions,
}

impl Errand<'_> {
    fn restore_one(&self, streams: &mut Streams<'_>) -> Result<Exit, Stop> {
        let backup = self.options.backups.first().cloned().unwrap_or_default();
        let target = match super::select::one(self.settings, self.options.mode, &backup) {
            Selected::Backup(target) => target,
            Selected::Unknown { why, .. } => {
                write_labelled(streams.err, backup.as_bytes(), &why.to_string())?;
                return Ok(Exit::TempFail);
            }
        };
        let progress = Progress::hidden();
        let outcome = self.restore(&target, backup.as_bytes(), &progress, streams)?;
        Ok(if outcome == Outcome::Done { Exit::Ok } else { Exit::TempFail })
    }

    fn restore_many(&self, streams: &mut Streams<'_>) -> Result<Exit, Stop> {
        let selected = match select(self.settings, self.options.mode, &self.options.backups) {
            Ok(selected) => selected,
            Err(why) => {
                writeln!(streams.err, "{why}")?;
                return Ok(Exit::TempFail);
            }
        };
        if selected.is_empty() {
            let catalog = self.settings.backup_db_path.display();
            writeln!(streams.err, "no such backup in {catalog}")?;
            return Ok(Exit::TempFail);
        }
        let progress = Progress::start(selected.len(), streams);
        let visit = |selected: &Selected, streams: &mut Streams<'_>| match selected {
            Selected::Backup(target) => self.restore(target, target.label(), &progress, streams),
            Selected::Unknown { operand, why } => {
                write_labelled(streams.err, operand.as_bytes(), &why.to_string())?;
                Ok(Outcome::Unknown)
            }
        };
        let mut tally = Tally::start(selected.len());
        let mut done = |_: usize, outcome: Outcome| {
            tally.add(outcome);
            true
        };
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let jobs = self.options.jobs.map_or_else(cores, NonZero::get).min(selected.len()).max(1);
        let interrupted: Arc<AtomicBool> = bulk::interruption()?;
        // Shared mailboxes first: what users have seen of them goes by their unique ids there.
        let is_shared = |selected: &Selected| match selected {
            Selected::Backup(target) => target.label() == SHARED,
            Selected::Unknown { .. } => false,
        };
        let (shared, users): (Vec<_>, Vec<_>) = selected.into_iter().partition(is_shared);
        let result = [shared, users].iter().try_for_each(|some| {
            bulk::in_parallel(some, jobs, &visit, &interrupted, &progress, streams, &mut done)
        });
        progress.end();
        result?;
        if self.options.tell && !self.options.json {
            tally.write(streams.out)?;
        }
        let is_interrupted = interrupted.load(Ordering::Relaxed);
        Ok(if tally.failed() || is_interrupted { Exit::TempFail } else { Exit::Ok })
    }

    fn why(&self, error: &StoreError) -> String {
        store_error_in_full(error, self.options.own_words)
    }

    fn restore(
        &self,
        target: &Target,
        label: &[u8],
        progress: &Progress,
        streams: &mut Streams<'_>,
    ) -> Result<Outcome, Stop> {
        let mut opened = Backup::open_shared(&target.path, Wait::No);
        if self.options.wait && matches!(opened, Err(StoreError::Locked(_))) {
            // At once: of many backups, what is written to `streams` waits for its turn.
            let text = format!("{}: in use: waiting for its lock\n", lossy(label));
            progress.aside(|| io::stderr().write_all(text.as_bytes()))?;
            opened = Backup::open_shared(&target.path, Wait::Yes);
        }
        let backup = match opened {
            Ok(backup) => backup,
            Err(error) => {
                return self.failed(target, label, &self.why(&error), streams);
            }
        };
        let looked = moment::look_back(backup, self.options.at, self.rules, label, streams.err)?;
        let (backup, was_damaged) = match looked {
            Ok(looked) => looked,
            Err(error) => return self.failed(target, label, &self.why(&error), streams),
        };
        let planned = View::now(&backup).and_then(|view| {
            let plan = Plan::make(&view, self.rules, self.request, self.options.verbosity > 0)?;
            Ok((view, plan))
        });
        let (view, plan) = match planned {
            Ok(planned) => planned,
            Err(error) => return self.failed(target, label, &self.why(&error), streams),
        };
        for note in &plan.notes {
            words::write_note(note, streams.err)?;
        }
        let is_damaged = write_damages(streams.err, label, view.damages())? || was_damaged;
        let is_empty = self.is_emptier_than_expected(&plan);
        if is_empty {
            write_labelled(streams.err, label, words::NOTHING_LIVES)?;
        }
        let is_less = is_damaged || is_empty;
        if self.options.dry_run {
            return self.dry_run(target, &plan, &view, is_less, label, streams);
        }
        let userid = match self.owner(target, &view) {
            Ok(userid) => userid,
            Err(error) => {
                let why = store_error_in_full(&error, self.options.own_words);
                return self.failed(target, label, &why, streams);
            }
        };
        let staging = &self.settings.backup_staging_path;
        let job = Job {
            view: &view,
            userid: userid.as_deref(),
            rules: self.rules,
            request: self.request,
            staging,
        };
        let report = match self.carry_out(&job, &plan, streams)? {
            Ok(report) => report,
            Err(text) => return self.failed(target, label, &text, streams),
        };
        if self.options.tell && !self.options.json {
            words::write_report(&report, self.request.keep_ids, streams.out)?;
        }
        let failed = self.write_failures(label, &plan, &report, streams)? || is_less;
        if self.options.json {
            json::report(target, &plan, &report, failed).write(streams.out)?;
        }
        Ok(if failed { Outcome::Failed } else { Outcome::Done })
    }

    /// Says that nothing of a backup could be restored.
    fn failed(
        &self,
        target: &Target,
        label: &[u8],
        why: &str,
        streams: &mut Streams<'_>,
    ) -> Result<Outcome, Stop> {
        write_labelled(streams.err, label, why)?;
        if self.options.json {
            json::failure(target, why).write(streams.out)?;
        }
        Ok(Outcome::Failed)
    }

    /// Whether someone who has asked for all that lives, or lived then, gets no mailbox. With many
    /// backups there may well be one of a user who is gone.
    fn is_emptier_than_expected(&self, plan: &Plan) -> bool {
        let is_whole = match self.options.what {
            Words::Living => true,
            Words::All => self.options.at.is_some(),
            Words::Objects(_) | Words::File(_) => false,
        };
        is_whole
            && self.options.mode != Mode::All
            && self.request.parts.has(restore::Part::Mail)
            && plan.targets.is_empty()
    }

    fn dry_run(
        &self,
        target: &Target,
        plan: &Plan,
        view: &View<'_>,
        is_less: bool,
        label: &[u8],
        streams: &mut Streams<'_>,
    ) -> Result<Outcome, Stop> {
        if self.options.json {
            json::plan(target, plan).write(streams.out)?;
        } else {
            words::write_plan(plan, view, &self.request.parts, streams.out)?;
        }
        if self.options.verbosity > 0 {
            streams.out.flush()?;
            writeln!(streams.err, "do nothing (-n) specified, exiting now")?;
        }
        let failed = self.write_failures(label, plan, &Report::default(), streams)?;
        Ok(if failed || is_less { Outcome::Failed } else { Outcome::Done })
    }

    /// Restores; a connection that breaks is made again as long as that gets on.
    fn carry_out(
        &self,
        job: &Job<'_>,
        plan: &Plan,
        streams: &mut Streams<'_>,
    ) -> Result<Result<Report, String>, Stop> {
        let mut all: Option<Report> = None;
        for attempt in 0..=RECONNECTS_MAX {
            let mut client = match Client::connect(&self.client) {
                Ok(client) => client,
                Err(error) => match all {
                    Some(report) => return Ok(Ok(report)),
                    None => return Ok(Err(words::unreachable(&error, &self.client))),
                },
            };
            if self.options.verbosity > 0 && attempt == 0 && client.peer().has_sieve_mailbox {
                writeln!(streams.out, "ENABLE 0x800")?;
                streams.out.flush()?;
            }
            let progress = progress::Progress::start(plan, streams);
            let mut report =
                restore::run(job, plan, &mut client, &mut |event| progress.event(event));
            progress.end();
            // What was restored is; a server that does not say good-bye changes nothing.
            let _ = client.exit();
            let gets_on =
                report.mailboxes.iter().any(|mailbox| mailbox.created || mailbox.restored > 0);
            if let Some(before) = all {
                report.add_earlier(&before);
            }
            // What has arrived would be restored once more.
            let may_repeat = report.is_worth_a_retry && !self.request.duplicates;
            let again = report.ended.is_some() && may_repeat && gets_on;
            all = Some(report);
            if !again {
                break;
            }
            std::thread::sleep(RECONNECT_PAUSE);
        }
        Ok(Ok(all.unwrap_or_default()))
    }

    /// Whose backup it is; `None`: nobody's, or nothing tells.
    fn owner(&self, target: &Target, view: &View<'_>) -> Result<Option<Vec<u8>>, StoreError> {
        let keys = match &target.userid {
            Some(userid) => vec![userid.clone()],
            None => {
                let mailboxes = view.index().mailboxes();
                let mailboxes = mailboxes.map_err(StoreError::index(view.backup().path()))?;
                mailboxes.iter().map(|row| self.rules.backup_key(&row.mboxname)).collect()
            }
        };
        Ok(keys.into_iter().find(|key| key != SHARED))
    }

    fn write_failures(
        &self,
        label: &[u8],
        plan: &Plan,
        report: &Report,
        streams: &mut Streams<'_>,
    ) -> io::Result<bool> {
        words::write_failures(label, plan, report, self.request.duplicates, streams.err)
    }
}
