//! From options as they stand in the files to the one that counts: which names
//! exist, which form wins, and typed access to the winner.

use std::collections::{BTreeMap, HashMap};

use super::error::{ConfigError, ConfigWarning, Origin};
use super::file::{Entry, ImapdConf};
use super::known::{DEPRECATED, OWN_FAMILIES, known_name};
use super::value::{self, TimeUnit};

/// The one occurrence of an option that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<'a> {
    /// The name without service prefix; the old one of a deprecated option.
    pub(super) name: &'a str,
    pub(super) value: &'a [u8],
    pub(super) origin: &'a Origin,
}

impl Setting<'_> {
    /// Cyrus's `text` about this value, and what to write instead.
    pub(super) fn refuse(&self, text: &str, hint: &str) -> ConfigError {
        ConfigError::Value {
            what: format!("{text} in line {}", self.origin.line),
            hint: hint.to_owned(),
            origin: self.origin.clone(),
        }
    }

    /// The value for a message.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(self.value).into_owned()
    }
}

/// The options of one service.
#[derive(Debug)]
pub(super) struct Options<'a> {
    known: BTreeMap<&'a str, Setting<'a>>,
    /// Options without a type, by full name. No service form by itself, no
    /// `{configdirectory}`.
    free: BTreeMap<&'a str, &'a Entry>,
    service_prefix: String,
    pub(super) warnings: Vec<ConfigWarning>,
}

impl<'a> Options<'a> {
    /// Applies the rules on repeated, service-specific and deprecated options.
    pub(super) fn resolve(conf: &'a ImapdConf, ident: &str) -> Result<Options<'a>, ConfigError> {
        let service_prefix = format!("{}_", ident.to_ascii_lowercase());
        let mut options = Options {
            known: BTreeMap::new(),
            free: BTreeMap::new(),
            service_prefix,
            warnings: Vec::new(),
        };
        options.collect(conf.entries())?;
        options.transfer_deprecated();
        Ok(options)
    }

    fn collect(&mut self, entries: &'a [Entry]) -> Result<(), ConfigError> {
        let mut first: HashMap<(&str, bool), &Origin> = HashMap::new();
        for entry in entries {
            let full = entry.name.as_str();
            let service_form = full.strip_prefix(&self.service_prefix);
            let (name, specific) = match service_form.and_then(known_name) {
                Some(name) => (name, true),
                None => (known_name(full).unwrap_or(full), false),
            };
            if !specific && first.contains_key(&(name, true)) {
                // Cyrus does not even look at it.
                continue;
            }
            if let Some(&first) = first.get(&(name, specific)) {
                return Err(ConfigError::Twice {
                    name: full.to_owned(),
                    origin: entry.origin.clone(),
                    first: first.clone(),
                });
            }
            first.insert((name, specific), &entry.origin);
            if known_name(name).is_some() {
                let setting = Setting { name, value: &entry.value, origin: &entry.origin };
                self.known.insert(name, setting);
            } else {
                self.note_unknown(full, &entry.origin);
                self.free.insert(full, entry);
            }
        }
        Ok(())
    }

    /// Warns of `backup_retenton` and its like, but not of options that may be
    /// the service form for another program.
    fn note_unknown(&mut self, full: &str, origin: &Origin) {
        let name = full.strip_prefix(&self.service_prefix).unwrap_or(full);
        let own = OWN_FAMILIES.iter().any(|family| name.starts_with(family));
        let mut remainders = full.match_indices('_').map(|(at, _)| &full[at + 1..]);
        if own && !remainders.any(|rest| known_name(rest).is_some()) {
            self.warnings
                .push(ConfigWarning::Unknown { option: full.to_owned(), origin: origin.clone() });
        }
    }

    /// The preferred name wins; otherwise the value of the old one counts.
    fn transfer_deprecated(&mut self) {
        for &(option, preferred, since) in DEPRECATED {
            if let Some(setting) = self.known.remove(option) {
                self.warnings.push(ConfigWarning::Deprecated { option, preferred, since });
                self.known.entry(preferred).or_insert(setting);
            }
        }
    }

    /// The setting of a known option.
    pub(super) fn get(&self, name: &str) -> Option<Setting<'a>> {
        debug_assert!(known_name(name).is_some(), "{name} is not in KNOWN");
        self.known.get(name).copied()
    }

    /// An option without a type: the service form, else the plain one.
    pub(super) fn free(&self, name: &str) -> Option<Setting<'a>> {
        let specific = format!("{}{name}", self.service_prefix);
        let entry = self.free.get(specific.as_str()).or(self.free.get(name))?;
        Some(Setting { name: &entry.name, value: &entry.value, origin: &entry.origin })
    }

    /// All options without a type whose full name starts with `prefix`, with
    /// the rest of their names.
    pub(super) fn free_family(&self, prefix: &str) -> Vec<(&'a str, Setting<'a>)> {
        let family = self.free.iter().filter_map(|(full, entry)| {
            let setting = Setting { name: full, value: &entry.value, origin: &entry.origin };
            Some((full.strip_prefix(prefix)?, setting))
        });
        family.collect()
    }

    /// SWITCH.
    pub(super) fn switch(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        let Some(setting) = self.get(name) else {
            return Ok(default);
        };
        value::switch(setting.value).ok_or_else(|| {
            let text = format!("non-switch value for {}", setting.name);
            setting.refuse(&text, "use yes or no, in lower case")
        })
    }

    /// INT.
    pub(super) fn int(&self, name: &str, default: i64) -> Result<i64, ConfigError> {
        let Some(setting) = self.get(name) else {
            return Ok(default);
        };
        value::int(setting.value).ok_or_else(|| {
            let text = format!("non-integer value for {}", setting.name);
            setting.refuse(&text, "use a whole number without a unit")
        })
    }

    /// INT, cut off at the ends of `range`; a warning says so.
    pub(super) fn int_within(
        &mut self,
        name: &str,
        default: i32,
        range: std::ops::RangeInclusive<i32>,
    ) -> Result<i32, ConfigError> {
        let number = self.int(name, default.into())?;
        let taken = number.clamp((*range.start()).into(), (*range.end()).into());
        if number != taken {
            self.adjusted(name, format!("{number} is out of range, taken as {taken}"));
        }
        Ok(i32::try_from(taken).unwrap_or(default))
    }

    /// INT or BYTESIZE, in bytes.
    pub(super) fn size(&self, name: &str, default: i64, unit: i64) -> Result<i64, ConfigError> {
        let Some(setting) = self.get(name) else {
            return Ok(default);
        };
        value::size(setting.value, unit).ok_or_else(|| {
            let text = format!("non-integer value for {}", setting.name);
            setting.refuse(&text, "use a whole number, with unit K, M or G if you like")
        })
    }

    /// DURATION, in seconds.
    pub(super) fn seconds(
        &self,
        name: &str,
        default: i64,
        unit: TimeUnit,
    ) -> Result<i64, ConfigError> {
        let Some(setting) = self.get(name) else {
            return Ok(default);
        };
        value::duration(setting.value, unit).ok_or_else(|| {
            let (shown, name) = (setting.shown(), setting.name);
            let text = format!("unparsable duration '{shown}' for {name}");
            setting.refuse(&text, "use numbers with unit d, h, m or s, as in 1d12h")
        })
    }

    /// STRINGLIST and ENUM: one of `words`. Where `off` or `on` is among them, Cyrus takes some
    /// words of a switch for it.
    pub(super) fn word<T: Copy>(
        &self,
        name: &str,
        default: T,
        words: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let Some(setting) = self.get(name) else {
            return Ok(default);
        };
        let value: &[u8] = match setting.value {
            b"0" | b"no" | b"f" | b"false" => b"off",
            b"1" | b"yes" | b"t" | b"true" => b"on",
            value => value,
        };
        let found = words.iter().find(|(word, _)| word.as_bytes() == value);
        found.map(|&(_, meaning)| meaning).ok_or_else(|| {
            let (shown, name) = (setting.shown(), setting.name);
            let text = format!("invalid value '{shown}' for {name}");
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            setting.refuse(&text, &format!("use one of {}", words.join(", ")))
        })
    }

    /// Notes that the value of a set option was not taken as it stands.
    pub(super) fn adjusted(&mut self, name: &str, what: String) {
        if let Some(setting) = self.get(name) {
            self.warnings.push(ConfigWarning::Adjusted {
                option: setting.name.to_owned(),
                origin: setting.origin.clone(),
                what,
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    fn conf(text: &str) -> ImapdConf {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        ImapdConf::read(file.path(), None).unwrap()
    }

    /// The value of `admins` for ident `ctl_backups`, or the error up to the
    /// first parenthesis that Cyrus does not have.
    fn admins(text: &str) -> Result<String, String> {
        let conf = conf(text);
        match Options::resolve(&conf, "ctl_backups") {
            Ok(options) => Ok(options.get("admins").map_or(String::new(), |s| s.shown())),
            Err(e) => Err(e.to_string().split(" (file").next().unwrap().to_owned()),
        }
    }

    #[test]
    fn own_options_do_not_collide_with_the_service_form() {
        let conf = conf("cyrbk_listen: a\ncyrbk_admins: b\nadmins: c\n");
        for (ident, listen, admins) in [("cyrbk", "a", "b"), ("backupd", "a", "c")] {
            let options = Options::resolve(&conf, ident).unwrap();
            assert_eq!(options.get("cyrbk_listen").unwrap().shown(), listen);
            assert_eq!(options.get("admins").unwrap().shown(), admins);
            assert_eq!(options.warnings, []);
        }
    }

    #[test]
    fn an_option_may_be_given_once_in_each_form() {
        let twice = |name: &str, line: u32| {
            Err(format!(
                "option '{name}' was specified twice in config file \
                 (second occurrence on line {line})"
            ))
        };
        let rows = [
            ("admins: a\nadmins: b\n", twice("admins", 2)),
            ("admins: a\nADMINS: b\n", twice("admins", 2)),
            ("foo: a\nFOO: b\n", twice("foo", 2)),
            ("backuppartition-x: a\nBackupPartition-X: b\n", twice("backuppartition-x", 2)),
            ("ctl_backups_foo: a\nctl_backups_foo: a\n", twice("ctl_backups_foo", 2)),
            ("restore_admins: b\nrestore_admins: c\n", twice("restore_admins", 2)),
            ("ctl_backups_admins: b\nctl_backups_admins: a\n", twice("ctl_backups_admins", 2)),
            ("admins: a\nctl_backups_admins: b\n", Ok("b".to_owned())),
            ("ctl_backups_admins: b\nadmins: a\n", Ok("b".to_owned())),
            ("CTL_Backups_admins: b\nadmins: a\n", Ok("b".to_owned())),
            ("admins: a\nctl_backups_admins: b\nadmins: c\n", Ok("b".to_owned())),
            ("ctl_backups_admins: b\nadmins: a\nadmins: c\n", Ok("b".to_owned())),
            ("restore_admins: b\nadmins: a\n", Ok("a".to_owned())),
        ];
        for (text, expected) in rows {
            assert_eq!(admins(text), expected, "{text}");
        }
    }

    #[test]
    fn the_preferred_name_beats_the_deprecated_one_in_any_form() {
        let rows = [
            ("backup_retention_days: 3\n", "3"),
            ("backup_retention_days: 3\nbackup_retention: 9d\n", "9d"),
            ("backup_retention: 9d\nbackup_retention_days: 3\n", "9d"),
            ("backup_retention_days: 3\nctl_backups_backup_retention: 9d\n", "9d"),
            ("ctl_backups_backup_retention_days: 3\nbackup_retention: 9d\n", "9d"),
            ("ctl_backups_backup_retention_days: 3\nbackup_retention_days: 5\n", "3"),
        ];
        for (text, expected) in rows {
            let conf = conf(text);
            let options = Options::resolve(&conf, "ctl_backups").unwrap();
            let setting = options.get("backup_retention").unwrap();
            assert_eq!(setting.shown(), expected, "{text}");
            let logged: Vec<String> = options.warnings.iter().map(|w| w.to_string()).collect();
            let warning = "Option 'backup_retention_days' is deprecated \
                           in favor of 'backup_retention' since version 3.1.8.";
            assert_eq!(logged, [warning], "{text}");
        }
    }

    #[test]
    fn typing_errors_in_own_families_are_noted() {
        let conf = conf(
            "backup_retenton: 3\nimapidlepoll: 5\nbackup_admins: x\n\
             ctl_backups_backup_dbpath: /x\nbackupd_backup_db: sql\n",
        );
        let options = Options::resolve(&conf, "ctl_backups").unwrap();
        let names: Vec<&str> = options
            .warnings
            .iter()
            .map(|w| match w {
                ConfigWarning::Unknown { option, .. } => option.as_str(),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(names, ["backup_retenton", "ctl_backups_backup_dbpath"]);
    }

    #[test]
    fn free_options_have_a_service_form_but_families_do_not() {
        let conf = conf(
            "sasl_mech_list: PLAIN\nbackupd_sasl_mech_list: LOGIN\n\
             backuppartition-a: /a\nbackupd_backuppartition-b: /b\n",
        );
        let show = |ident: &str| {
            let options = Options::resolve(&conf, ident).unwrap();
            let family = options.free_family("backuppartition-");
            let names: Vec<&str> = family.iter().map(|(name, _)| *name).collect();
            (options.free("sasl_mech_list").unwrap().shown(), names)
        };
        assert_eq!(show("backupd"), ("LOGIN".to_owned(), vec!["a"]));
        assert_eq!(show("restore"), ("PLAIN".to_owned(), vec!["a"]));
    }

    #[test]
    fn a_duplicate_names_both_places() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a: 1\n\na: 2\n").unwrap();
        let conf = ImapdConf::read(file.path(), None).unwrap();
        let name = Path::display(file.path());
        assert_eq!(
            Options::resolve(&conf, "restore").unwrap_err().to_string(),
            format!(
                "option 'a' was specified twice in config file (second occurrence on line 3) \
                 (file {name}: remove one; the first is in {name} line 1)"
            )
        );
    }
}
