//! The configuration: imapd.conf, read once, to typed [`Settings`].
//!
//! | File | What it knows |
//! |---|---|
//! | `file` | the grammar: files, includes, lines, names |
//! | `known` | which names exist, which are deprecated |
//! | `options` | which occurrence of an option counts |
//! | `value` | what a switch, a number, a duration is |
//! | `settings` | the result, with units and defaults |
//! | `lookup` | values as paths and texts, `{configdirectory}` |
//! | `load` | which option goes where |
//! | `error` | texts, Cyrus's first |
//!
//! An existing site's file must mean here what it means to Cyrus. Options that
//! a backup server does not read are accepted whatever their value.

mod error;
mod file;
mod known;
mod load;
mod lookup;
mod options;
mod settings;
mod value;

pub use error::{ConfigError, ConfigWarning, EXIT_CONFIG, Origin};
pub use file::{Entry, FILE_LEN_MAX, ImapdConf};
pub use settings::{
    CompactSettings, DbBackend, KeepAliveSettings, LimitSettings, NameRules, PartitionMode,
    PartitionSelect, PwCheck, SaslSettings, Secret, Settings, SyncClientSettings, SyncTls,
    SyslogFacility, TlsClientCerts, TlsSettings, Virtdomains,
};
