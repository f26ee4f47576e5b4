//! Values of options as paths, texts and limits: typed access to
//! [`Options`] plus the one value that goes into others, the configuration
//! directory.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::file::ImapdConf;
use super::options::{Options, Setting};
use super::value::TimeUnit;

/// Replaced by the configuration directory at the start of a value.
const DIRECTORY_MARK: &[u8] = b"{configdirectory}";

const RELATIVE: &str = "not an absolute path, so it depends on the working directory";

/// The options of a service and the directory that goes into some of them.
pub(super) struct Lookup<'a> {
    pub(super) options: Options<'a>,
    pub(super) directory: PathBuf,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(conf: &'a ImapdConf, ident: &str) -> Result<Lookup<'a>, ConfigError> {
        let mut options = Options::resolve(conf, ident)?;
        let Some(setting) = options.get("configdirectory") else {
            return Err(ConfigError::NoConfigDirectory { file: conf.path().to_owned() });
        };
        let directory = to_path(setting.value.to_vec());
        if !directory.is_absolute() {
            options.adjusted("configdirectory", RELATIVE.to_owned());
        }
        Ok(Lookup { options, directory })
    }

    /// STRING, with `{configdirectory}` replaced.
    pub(super) fn string(&self, name: &str) -> Option<Vec<u8>> {
        let value = self.options.get(name)?.value;
        let Some((mark, rest)) = value.split_at_checked(DIRECTORY_MARK.len()) else {
            return Some(value.to_vec());
        };
        if !mark.eq_ignore_ascii_case(DIRECTORY_MARK) {
            return Some(value.to_vec());
        }
        let mut replaced = self.directory.clone().into_os_string().into_vec();
        replaced.extend_from_slice(rest);
        Some(replaced)
    }

    pub(super) fn path(&mut self, name: &str) -> Option<PathBuf> {
        let path = to_path(self.string(name)?);
        if !path.is_absolute() {
            self.options.adjusted(name, RELATIVE.to_owned());
        }
        Some(path)
    }

    pub(super) fn path_or_below(&mut self, name: &str, file: &str) -> PathBuf {
        self.path(name).unwrap_or_else(|| self.directory.join(file))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        match (self.options.get(name), self.string(name)) {
            (Some(setting), Some(value)) => to_text(&setting, value).map(Some),
            _ => Ok(None),
        }
    }

    /// A list separated by white space.
    pub(super) fn words(&self, name: &str) -> Result<Option<Vec<String>>, ConfigError> {
        Ok(self.text(name)?.map(|text| split(&text, "")))
    }

    /// A duration that cannot be negative; a number without unit is seconds.
    pub(super) fn pause(&self, name: &str, default: i64) -> Result<Duration, ConfigError> {
        let seconds = self.options.seconds(name, default, TimeUnit::Seconds)?;
        Ok(Duration::from_secs(seconds.try_into().unwrap_or(0)))
    }

    /// A size in bytes; zero and below is none at all.
    pub(super) fn limit(&self, name: &str, default: i64) -> Result<u64, ConfigError> {
        let size = self.options.size(name, default, 1)?;
        Ok(size.try_into().ok().filter(|&n| n > 0).unwrap_or(u64::MAX))
    }
}

/// Bytes of a file as a path.
pub(super) fn to_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// Bytes of a file as text, which has to be UTF-8.
pub(super) fn to_text(setting: &Setting<'_>, value: Vec<u8>) -> Result<String, ConfigError> {
    String::from_utf8(value).map_err(|_| {
        let text = format!("non-UTF-8 value for {}", setting.name);
        setting.refuse(&text, "save the file in UTF-8")
    })
}

/// Splits at white space and at the characters of `also`.
pub(super) fn split(text: &str, also: &str) -> Vec<String> {
    let parts = text.split(|c: char| c.is_ascii_whitespace() || c == '\x0b' || also.contains(c));
    parts.filter(|p| !p.is_empty()).map(str::to_owned).collect()
}
