//! Times as the tools print them: local, `YYYY-MM-DD HH:MM:SS`, no zone.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

pub(super) use crate::store::clock::now;

/// When summer is in a `TZ` like `CET-1CEST`, which does not say it: the C library's
/// rule.
const POSIX_RULE: &str = ",M3.2.0,M11.1.0";

/// The time zone of the process: `TZ`, else the machine's, else UTC.
pub(super) struct LocalTime {
    zone: TimeZone,
}

impl LocalTime {
    pub(super) fn new() -> LocalTime {
        let rule_less = || TimeZone::posix(&(std::env::var("TZ").ok()? + POSIX_RULE)).ok();
        let zone = TimeZone::try_system().ok().or_else(rule_less);
        LocalTime { zone: zone.unwrap_or(TimeZone::UTC) }
    }

    /// UTC, whatever the process's zone.
    #[cfg(test)]
    pub(super) fn utc() -> LocalTime {
        LocalTime { zone: TimeZone::UTC }
    }

    /// `unix`: Unix time, seconds. One outside of what calendars hold (years -9999
    /// to 9999) is printed as the number.
    pub(super) fn format(&self, unix: i64) -> String {
        match Timestamp::from_second(unix) {
            Ok(time) => time.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
            Err(_) => unix.to_string(),
        }
    }
}

/// A moment as people type it, to Unix time: `2026-11-20 12:00[:30]` in the local zone,
/// `2026-11-20` (its beginning), RFC 3339 with an offset, or `@` and a Unix time.
pub(super) fn moment(text: &str) -> Result<i64, String> {
    moment_in(text, LocalTime::new().zone)
}

fn moment_in(text: &str, zone: TimeZone) -> Result<i64, String> {
    let text = text.trim();
    if let Some(Ok(unix)) = text.strip_prefix('@').map(str::parse::<i64>) {
        return Ok(unix);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_second());
    }
    let local = text.parse::<DateTime>().ok().and_then(|local| local.to_zoned(zone).ok());
    local.map(|zoned| zoned.timestamp().as_second()).ok_or_else(|| {
        format!(
            "`{text}` is no time; try `2026-11-20 12:00`, which is local, or \
             `2026-11-20T12:00:00+01:00`"
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let zone = || TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (text, unix) in [
            ("2026-11-21 08:52:06", 1_795_247_526),
            ("2026-11-21T08:52:06", 1_795_247_526),
            (" 2026-11-21 08:52 ", 1_795_247_520),
            ("2026-11-21", 1_795_215_600),
            ("2026-11-21T07:52:06Z", 1_795_247_526),
            ("2026-11-21 09:52:06+02:00", 1_795_247_526),
            ("@17", 17),
            ("2026-06-21 02:00", 1_782_000_000),
        ] {
            assert_eq!(moment_in(text, zone()), Ok(unix), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "12:00", "20261121x", "@", "@x"] {
            let error = moment_in(text, zone()).unwrap_err();
            assert!(error.contains("is no time; try"), "{error}");
        }
    }

    #[test]
    fn zones_and_odd_times() {
        let utc = LocalTime { zone: TimeZone::UTC };
        assert_eq!(utc.format(0), "1970-01-01 00:00:00");
        assert_eq!(utc.format(1_795_247_526), "2026-11-21 07:52:06");
        assert_eq!(utc.format(-1), "1969-12-31 23:59:59");
        assert_eq!(utc.format(i64::MAX), i64::MAX.to_string());
        let posix = LocalTime { zone: TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap() };
        assert_eq!(posix.format(1_795_247_526), "2026-11-21 08:52:06");
        assert_eq!(posix.format(1_782_000_000), "2026-06-21 02:00:00");
    }
}
