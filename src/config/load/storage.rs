//! The options about backups on disk: where they are, what they are called,
//! how they are created and compacted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::super::error::{ConfigError, ConfigWarning};
use super::super::lookup::{Lookup, split, to_path};
use super::super::settings::{
    CompactSettings, NameRules, PartitionMode, PartitionSelect, Virtdomains,
};
use super::super::value::{self, KIB, TimeUnit};

const PARTITION_MODES: &[(&str, PartitionMode)] = &[
    ("random", PartitionMode::Random),
    ("freespace-most", PartitionMode::FreespaceMost),
    ("freespace-percent-most", PartitionMode::FreespacePercentMost),
    ("freespace-percent-weighted", PartitionMode::FreespacePercentWeighted),
    ("freespace-percent-weighted-delta", PartitionMode::FreespacePercentWeightedDelta),
];

const VIRTDOMAINS: &[(&str, Virtdomains)] =
    &[("off", Virtdomains::Off), ("userid", Virtdomains::Userid), ("on", Virtdomains::On)];

impl Lookup<'_> {
    pub(super) fn check_defaultpartition(&self) -> Result<(), ConfigError> {
        match self.options.get("defaultpartition") {
            Some(setting) if !setting.value.iter().all(u8::is_ascii_alphanumeric) => {
                Err(ConfigError::DefaultPartition { origin: setting.origin.clone() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn backup_partitions(&mut self) -> Result<BTreeMap<String, PathBuf>, ConfigError> {
        let mut partitions = BTreeMap::new();
        for (name, setting) in self.options.free_family("backuppartition-") {
            if name.is_empty() {
                self.options.warnings.push(ConfigWarning::Adjusted {
                    option: setting.name.to_owned(),
                    origin: setting.origin.clone(),
                    what: "a partition without a name is ignored".to_owned(),
                });
                continue;
            }
            let path = to_path(setting.value.to_vec());
            if !path.is_absolute() {
                let (shown, name) = (setting.shown(), setting.name);
                let text = format!("invalid value '{shown}' for {name}");
                return Err(setting.refuse(&text, "use an absolute path, written out"));
            }
            partitions.insert(name.to_owned(), path);
        }
        Ok(partitions)
    }

    pub(super) fn partition_select(&mut self) -> Result<PartitionSelect, ConfigError> {
        let whole = i32::MIN..=i32::MAX;
        let exclude = self.text("partition_select_exclude")?.unwrap_or_default();
        let mode = PartitionMode::FreespaceMost;
        Ok(PartitionSelect {
            mode: self.options.word("partition_select_mode", mode, PARTITION_MODES)?,
            exclude: split(&exclude.to_ascii_lowercase(), ","),
            soft_usage_limit: self.options.int_within(
                "partition_select_soft_usage_limit",
                0,
                whole.clone(),
            )?,
            usage_reinit: self.options.int_within("partition_select_usage_reinit", 0, whole)?,
        })
    }

    pub(super) fn umask(&mut self) -> Result<u32, ConfigError> {
        let Some(setting) = self.options.get("umask") else {
            return Ok(0o077);
        };
        let Some((mask, clean)) = value::octal_mask(setting.value) else {
            let text = format!("invalid value '{}' for umask", setting.shown());
            return Err(setting.refuse(&text, "use an octal number such as 077"));
        };
        if !clean {
            let what = format!("'{}' is not an octal mask, taken as {mask:03o}", setting.shown());
            self.options.adjusted("umask", what);
        }
        Ok(mask)
    }

    pub(super) fn name_rules(&self) -> Result<NameRules, ConfigError> {
        let domain = self.text("defaultdomain")?;
        let prefix = self.text("deletedprefix")?;
        Ok(NameRules {
            virtdomains: self.options.word("virtdomains", Virtdomains::Off, VIRTDOMAINS)?,
            defaultdomain: Some(domain.unwrap_or("internal".into())),
            deletedprefix: prefix.unwrap_or("DELETED".into()),
            unixhierarchysep: self.options.switch("unixhierarchysep", true)?,
            altnamespace: self.options.switch("altnamespace", true)?,
        })
    }

    pub(super) fn retention(&self) -> Result<Option<Duration>, ConfigError> {
        let week = 7 * 86_400;
        let seconds = self.options.seconds("backup_retention", week, TimeUnit::Days)?;
        let positive = u64::try_from(seconds).ok().filter(|&s| s > 0);
        Ok(positive.map(Duration::from_secs))
    }

    pub(super) fn compact(&mut self) -> Result<CompactSettings, ConfigError> {
        let options = &mut self.options;
        let minsize = options.size("backup_compact_minsize", 0, KIB)?;
        let maxsize = options.size("backup_compact_maxsize", 0, KIB)?;
        let whole = i32::MIN..=i32::MAX;
        let threshold = options.int_within("backup_compact_work_threshold", 1, whole)?;
        Ok(CompactSettings {
            minsize: minsize.try_into().unwrap_or(0),
            maxsize: maxsize.try_into().unwrap_or(0),
            work_threshold: threshold.max(1).unsigned_abs(),
            keep_previous: options.switch("backup_keep_previous", false)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    #[test]
    fn zero_and_negative_values_have_their_meanings() {
        let retention = |value: &str| {
            let lines = format!("backup_retention: {value}\n");
            settings(&lines).unwrap().retention.map(|d| d.as_secs())
        };
        assert_eq!(retention("0"), None);
        assert_eq!(retention("-5d"), None);
        assert_eq!(retention("-"), None);
        assert_eq!(retention("1s"), Some(1));
        assert_eq!(retention("36500d"), Some(36_500 * 86_400));
        assert_eq!(retention("99999999999999999999"), Some(1000 * 365 * 86_400));
        let settings = settings(
            "backup_compact_minsize: -5\nbackup_compact_maxsize: 99999999999999999999\n\
             backup_compact_work_threshold: -5\nfailedloginpause: -1\nsync_timeout: -1h\n\
             maxliteral: 0\nmaxquoted: -1\nmaxword: 1K\n",
        )
        .unwrap();
        assert_eq!(settings.compact.minsize, 0);
        assert_eq!(settings.compact.maxsize, i64::MAX.unsigned_abs());
        assert_eq!(settings.compact.work_threshold, 1);
        assert_eq!(settings.failedloginpause, Duration::ZERO);
        assert_eq!(settings.sync_timeout, Duration::from_secs(3));
        assert_eq!((settings.maxliteral, settings.maxquoted), (u64::MAX, u64::MAX));
        assert_eq!(settings.maxword, 1024);
    }

    #[test]
    fn virtdomains_takes_switch_words_too() {
        for (words, expected) in [
            (&["off", "0", "no", "f", "false"][..], Virtdomains::Off),
            (&["on", "1", "yes", "t", "true"], Virtdomains::On),
            (&["userid"], Virtdomains::Userid),
        ] {
            for word in words {
                let settings = settings(&format!("virtdomains: {word}\n")).unwrap();
                assert_eq!(settings.names.virtdomains, expected, "{word}");
            }
        }
        for bad in ["y", "n", "ON", "Userid"] {
            settings(&format!("virtdomains: {bad}\n")).unwrap_err();
        }
    }

    #[test]
    fn a_partition_is_missed_only_when_asked_for() {
        let missing = |lines: &str| settings(lines).unwrap().require_partition().is_err();
        assert!(missing(""));
        assert!(missing("backuppartition-a: /a\npartition_select_exclude: A\n"));
        assert!(missing("backuppartition-: /a\n"));
        assert!(missing("ctl_backups_backuppartition-a: /a\n"));
        assert!(!missing(
            "backuppartition-a: /a\nbackuppartition-b: /b\n\
                          partition_select_exclude: a\n"
        ));
        let settings = settings("").unwrap();
        let error = settings.require_partition().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`backuppartition-<name>: /absolute/path`"), "{text}");
        assert!(text.contains(settings.config_file.to_str().unwrap()), "{text}");
    }
}
