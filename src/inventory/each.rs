//! Values that hosts of an entry have for themselves: one, a list in the order of its hosts, or a map by their names.

use super::faults::Faults;
use super::fields::Fields;
use super::hostlist::{Counted, Pattern};
use super::names;
use super::nics::Named;
use super::scalars::Bad;
use super::suggest::{did_you_mean, quote};
use super::tree::{At, Kind, Scalar, Span};
use super::written::WrittenHost;
use crate::diagnostic::Diagnostic;

/// What is read into it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// `mac`.
    pub(super) one: &'static str,
    /// `macs`.
    pub(super) several: &'static str,
    /// `MAC addresses`.
    pub(super) what: &'static str,
    /// Whether a single one is the first host's of a range, and that of the next follows.
    pub(super) counts: bool,
}

pub(super) const MAC: Key = Key {
    one: "mac",
    several: "macs",
    what: "MAC addresses",
    counts: true,
};
pub(super) const SERIAL: Key = Key {
    one: "serial",
    several: "serials",
    what: "serial numbers",
    counts: false,
};

/// The values of one key.
#[derive(Debug)]
pub(super) struct Each<T> {
    /// In the order of the hosts; of a single host, all are its own.
    pub(super) list: Vec<At<T>>,
    by_name: Named<T>,
}

impl<T: Clone> Each<T> {
    pub(super) fn read(
        key: Key,
        fields: &mut Fields<'_, '_>,
        faults: &mut Faults,
        read: impl Fn(&Scalar<'_>) -> Result<T, Bad>,
    ) -> Self {
        let one = fields.get(key.one, faults, &read);
        let kind = fields.node(key.several).map(|node| &node.kind);
        let by_name = matches!(kind, Some(Kind::Mapping(_)));
        let both = fields.key_span(key.one).zip(fields.key_span(key.several));
        match both.filter(|_| !(by_name && key.counts)) {
            Some(both) => report_both(key, fields.what(), both, faults),
            None => require_some(key, fields, faults),
        }
        let (several, by_name) = match by_name {
            true => {
                let map = fields.map(key.several, faults);
                let values = map.map(|map| map.values(faults, names::host_name, &read));
                (Vec::new(), values.unwrap_or_default())
            }
            false => (fields.list(key.several, faults, &read), Vec::new()),
        };
        let list = one.into_iter().chain(several).collect();
        Self { list, by_name }
    }

    /// That of a host by its name; there it supersedes one that counts up.
    pub(super) fn named(&self, host: &str) -> Option<At<T>> {
        let mut named = self.by_name.iter();
        named
            .find(|(name, _)| name.value == host)
            .map(|(_, at)| at.clone())
    }

    /// Whether they fit the hosts of their entry; if not, that is reported.
    pub(super) fn fits(&self, key: Key, written: &WrittenHost, faults: &mut Faults) -> bool {
        match &written.pattern {
            Pattern::Refused => false,
            Pattern::One(_) => self.fits_one(key, written, faults),
            Pattern::Range(names) => {
                self.fits_range(key, names, written.span, faults)
                    & self.names_fit(key, names, written.span, faults)
            }
        }
    }

    fn fits_one(&self, key: Key, written: &WrittenHost, faults: &mut Faults) -> bool {
        let Key {
            one, several, what, ..
        } = key;
        let (span, message) = match (self.by_name.first(), self.list.get(1)) {
            (Some((name, _)), _) => (name.span, format!("`{several}` by name is for ranges")),
            (None, Some(second)) if !key.counts => {
                (second.span, format!("one host has several {what}"))
            }
            _ => return true,
        };
        let help = format!("write `{one}: …`");
        let fault = Diagnostic::error("inventory::bad_host_range", message)
            .with_label(faults.primary(span, ""))
            .with_label(faults.context(written.span, "the host"))
            .with_help(help);
        faults.push(fault);
        false
    }

    fn fits_range(&self, key: Key, names: &Counted, range: Span, faults: &mut Faults) -> bool {
        let (given, hosts) = (self.list.len(), names.count as usize);
        if given == 0 || given == hosts || (given == 1 && key.counts) {
            return true;
        }
        let given_words = match given {
            1 => format!("one `{}`", key.one),
            _ => format!("{given} {}", key.what),
        };
        let message = format!("a range of {hosts} hosts has {given_words}");
        let span = self.list.first().map_or(range, |at| at.span);
        let help = match key.counts {
            true => "give one for each host, or one alone to count up from".to_owned(),
            false => format!(
                "give one for each host, or those that you know by name: {}: {{{}: …}}",
                key.several,
                names.name(0)
            ),
        };
        let fault = Diagnostic::error("inventory::bad_host_range", message)
            .with_label(faults.primary(span, if given > 1 { "the first of them" } else { "" }))
            .with_label(faults.context(range, "the range"))
            .with_help(help);
        faults.push(fault);
        false
    }

    fn names_fit(&self, key: Key, names: &Counted, range: Span, faults: &mut Faults) -> bool {
        let known: Vec<String> = match self.by_name.is_empty() {
            true => return true,
            false => (0..names.count).map(|index| names.name(index)).collect(),
        };
        let stranger = |(name, _): &&(At<String>, At<T>)| !known.contains(&name.value);
        let Some((name, _)) = self.by_name.iter().find(stranger) else {
            return true;
        };
        let message = format!(
            "`{}` names {}, which is not in the range",
            key.several,
            quote(&name.value)
        );
        let fault = Diagnostic::error("inventory::bad_host_range", message)
            .with_label(faults.primary(name.span, ""))
            .with_label(faults.context(range, "the range"))
            .with_help(did_you_mean(&name.value, known.iter().map(String::as_str)));
        faults.push(fault);
        false
    }
}

fn report_both(key: Key, what: &str, (one, several): (Span, Span), faults: &mut Faults) {
    let message = format!("{what} has both `{}` and `{}`", key.one, key.several);
    let fault = Diagnostic::error("inventory::mac_and_macs", message)
        .with_label(faults.primary(several, "here the list"))
        .with_label(faults.context(one, "here the single one"))
        .with_help(format!("put all of them into `{}: [...]`", key.several));
    faults.push(fault);
}

fn require_some(key: Key, fields: &mut Fields<'_, '_>, faults: &mut Faults) {
    let Some(node) = fields.node(key.several) else {
        return;
    };
    if matches!(&node.kind, Kind::Sequence(items) if items.is_empty()) {
        let message = format!("`{}` of {} is empty", key.several, fields.what());
        let help = "write at least one, or take the key out: then it waits for its hardware";
        faults.error("inventory::missing_key", node.span, message, "", help);
    }
}
