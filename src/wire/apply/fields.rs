//! The fields of a payload, with the protocol's notion of "missing".

use super::Reject;
use crate::wire::dlist::{self, KvList, Literals, Printer, Value};

/// The fields of a payload, with the protocol's notion of "missing".
pub(super) struct Fields<'a>(pub(super) dlist::Fields<'a>);

pub(super) fn fields<'a>(value: &Value<'a>) -> Result<Fields<'a>, Reject> {
    match value {
        Value::KvList(kv) => Ok(Fields(KvList::fields(kv))),
        _ => Err(Reject::Protocol),
    }
}

impl<'a> Fields<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.0.get(name)
    }

    pub(super) fn u64(&self, name: &str) -> Result<u64, Reject> {
        self.0.number(name).ok_or(Reject::BadParameters)
    }

    /// 32-bit fields take the low 32 bits, as everywhere in this protocol.
    pub(super) fn u32(&self, name: &str) -> Result<u32, Reject> {
        self.u64(name).map(|n| n as u32)
    }

    pub(super) fn time(&self, name: &str) -> Result<i64, Reject> {
        i64::try_from(self.u64(name)?).map_err(|_| Reject::BadParameters)
    }

    pub(super) fn text(&self, name: &str) -> Result<Vec<u8>, Reject> {
        self.0.text(name).map(<[u8]>::to_vec).ok_or(Reject::BadParameters)
    }

    pub(super) fn nullable(&self, name: &str) -> Result<Option<Vec<u8>>, Reject> {
        match self.get(name) {
            Some(Value::Nil) => Ok(None),
            _ => self.text(name).map(Some),
        }
    }

    /// Canonical text of a kvlist of all fields but `known`; `None` if there are
    /// no others.
    pub(super) fn others(&self, known: &[&[u8]]) -> Option<Vec<u8>> {
        let mut printer = Printer::new(Literals::NonSync, b"%(".to_vec());
        let others = self.0.pairs().filter(|(key, _)| !known.contains(key));
        let mut count = 0;
        for (key, value) in others {
            printer.separator(count).item(key, value);
            count += 1;
        }
        printer.raw(b")");
        (count > 0).then(|| printer.into_text())
    }

    /// Canonical text of a list, as the index keeps it; empty if absent.
    pub(super) fn list(&self, name: &str) -> Vec<u8> {
        canonical_list(self.get(name))
    }
}

/// Canonical text of a list, as the index keeps it; empty if there is none.
pub(super) fn canonical_list(value: Option<&Value<'_>>) -> Vec<u8> {
    match value {
        Some(value @ Value::List(_)) => canonical(value),
        _ => Vec::new(),
    }
}

pub(super) fn canonical(value: &Value<'_>) -> Vec<u8> {
    let mut printer = Printer::new(Literals::NonSync, Vec::new());
    printer.value(value);
    printer.into_text()
}
