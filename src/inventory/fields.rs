//! Walks one map of the tree: asks for keys by name, collects what is wrong with the values,
//! and at the end knows which keys nobody asked for.

use std::sync::Arc;

use super::faults::Faults;
use super::scalars::Bad;
use super::suggest::{known, nearest, quote};
use super::tree::{At, Entry, Kind, Node, Scalar, Span};
use crate::diagnostic::Diagnostic;

/// What messages call the file as a whole.
pub(super) const TOP: &str = "the inventory";

/// One map and what has been asked of it.
#[derive(Debug)]
pub(super) struct Fields<'t, 'i> {
    /// What messages call the map: `host kvm01`, `bridge of profile base`.
    what: String,
    /// What values taken from it say they stand in: `host kvm01`.
    layer: Arc<str>,
    place: Span,
    entries: &'t [Entry<'i>],
    asked: Vec<&'static str>,
    /// It is no map at all, which is reported: nothing can be missing from it.
    broken: bool,
}

impl<'t, 'i> Fields<'t, 'i> {
    /// The map in `node`; `place` is where its name stands. Nothing (null) is an empty map.
    pub(super) fn new(
        node: &'t Node<'i>,
        place: Span,
        layer: Arc<str>,
        faults: &mut Faults,
    ) -> Self {
        let what = layer.to_string();
        let (entries, broken) = entries_of(node, &what, faults);
        Self {
            what,
            layer,
            place,
            entries,
            asked: Vec::new(),
            broken,
        }
    }

    pub(super) fn layer(&self) -> &Arc<str> {
        &self.layer
    }

    pub(super) fn place(&self) -> Span {
        self.place
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// All entries, for maps whose keys are the operator's names.
    pub(super) fn entries(&self) -> &'t [Entry<'i>] {
        self.entries
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key.text == key)
    }

    /// Every entry of a map whose keys are the operator's names.
    pub(super) fn values<T>(
        &self,
        faults: &mut Faults,
        name: impl Fn(&Scalar<'_>) -> Result<String, Bad>,
        read: impl Fn(&Scalar<'_>) -> Result<T, Bad>,
    ) -> Vec<(At<String>, At<T>)> {
        let mut values = Vec::new();
        for entry in self.entries.iter().filter(|entry| !entry.duplicate) {
            let span = entry.key_span;
            let named = name(&entry.key).map_err(|bad| bad.report(span, &self.what, faults));
            let value = self.read(&entry.key.text, &entry.node, faults, &read);
            let named = named.map(|value| At { value, span }).ok();
            values.extend(named.zip(value));
        }
        values
    }

    /// Whether a key is there, or one that is reported as probably meant for it.
    pub(super) fn has_like(&self, key: &str) -> bool {
        let like = |entry: &Entry<'_>| nearest(&entry.key.text, [key]).is_some();
        self.has(key) || self.entries.iter().any(like)
    }

    /// Where a key stands.
    pub(super) fn key_span(&self, key: &str) -> Option<Span> {
        let entry = self.entries.iter().find(|entry| entry.key.text == key)?;
        Some(entry.key_span)
    }

    /// The value of a key, whatever it is.
    pub(super) fn node(&mut self, key: &'static str) -> Option<&'t Node<'i>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let entry = self.entries.iter().find(|entry| entry.key.text == key)?;
        Some(&entry.node)
    }

    /// One scalar value, read by `read`.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        faults: &mut Faults,
        read: impl Fn(&Scalar<'_>) -> Result<T, Bad>,
    ) -> Option<At<T>> {
        let node = self.node(key)?;
        self.read(key, node, faults, read)
    }

    /// A list of values; a single value stands for a list of one.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        faults: &mut Faults,
        read: impl Fn(&Scalar<'_>) -> Result<T, Bad>,
    ) -> Vec<At<T>> {
        let Some(node) = self.node(key) else {
            return Vec::new();
        };
        let items = match &node.kind {
            Kind::Sequence(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let read = |item| self.read(key, item, faults, &read);
        items.iter().filter_map(read).collect()
    }

    /// A map below this one; absent or broken yields nothing.
    pub(super) fn map(&mut self, key: &'static str, faults: &mut Faults) -> Option<Self> {
        let place = self.key_span(key)?;
        let node = self.node(key)?;
        if node.is_null() {
            self.empty_value(key, node.span, faults);
            return None;
        }
        let what = match &*self.layer {
            TOP => format!("`{key}`"),
            _ => format!("`{key}` of {}", self.what),
        };
        let (entries, broken) = entries_of(node, &what, faults);
        (!broken).then(|| Self {
            what,
            layer: self.layer.clone(),
            place,
            entries,
            asked: Vec::new(),
            broken,
        })
    }

    fn read<T>(
        &self,
        key: &str,
        node: &Node<'_>,
        faults: &mut Faults,
        read: impl Fn(&Scalar<'_>) -> Result<T, Bad>,
    ) -> Option<At<T>> {
        let span = node.span;
        match &node.kind {
            Kind::Scalar(scalar) if scalar.is_null() => self.empty_value(key, span, faults),
            Kind::Scalar(scalar) => match read(scalar) {
                Ok(value) => return Some(At { value, span }),
                Err(bad) => bad.report(span, &self.what, faults),
            },
            Kind::Refused => {}
            Kind::Sequence(_) => self.not_one_value(key, span, "a list", faults),
            Kind::Mapping(_) => self.not_one_value(key, span, "a map", faults),
        }
        None
    }

    fn empty_value(&self, key: &str, span: Span, faults: &mut Faults) {
        let span = self.key_span(key).unwrap_or(span);
        faults.error(
            "inventory::empty_value",
            span,
            format!("`{key}` of {} has no value", self.what),
            "nothing (YAML's null) stands here",
            "write a value, or remove the key; to name something `null` or `~`, quote it",
        );
    }

    fn not_one_value(&self, key: &str, span: Span, found: &str, faults: &mut Faults) {
        faults.error(
            "inventory::wrong_type",
            span,
            format!("`{key}` of {} takes a single value", self.what),
            format!("{found} begins here"),
            format!("write `{key}: VALUE`; a value with `: `, `[` or `{{` in it needs quotes"),
        );
    }

    /// Reports a key that must be there and is not. `example` is a value to copy.
    pub(super) fn require(&self, key: &str, example: &str, faults: &mut Faults) {
        if self.broken || self.has_like(key) {
            return;
        }
        faults.error(
            "inventory::missing_key",
            self.place,
            format!("{} has no `{key}`", self.what),
            "",
            format!("add `{key}: {example}`"),
        );
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self, faults: &mut Faults) {
        let strangers = |entry: &&Entry<'_>| !self.asked.contains(&&*entry.key.text);
        for entry in self.entries.iter().filter(strangers) {
            if entry.duplicate {
                continue;
            }
            let name = quote(&entry.key.text);
            let message = format!("unknown key {name} in {}", self.what);
            let fault = Diagnostic::error("inventory::unknown_key", message)
                .with_label(faults.primary(entry.key_span, ""));
            let help = match faults.is_full() {
                true => String::new(),
                false => self.help_for(&entry.key.text),
            };
            faults.push(fault.with_help(help));
        }
    }

    /// Meant is a key that is not there yet; known are all.
    fn help_for(&self, key: &str) -> String {
        let glued = key.split_once(':');
        if let Some((name, value)) = glued.filter(|(name, _)| self.asked.contains(name)) {
            let value = quote(value);
            let value = value.trim_matches('`');
            return format!("leave a blank behind the colon: `{name}: {value}`");
        }
        let absent = self.asked.iter().copied().filter(|asked| !self.has(asked));
        match nearest(key, absent) {
            Some(near) => format!("did you mean `{near}`?"),
            None => known(self.asked.iter().copied()),
        }
    }
}

fn entries_of<'t, 'i>(
    node: &'t Node<'i>,
    what: &str,
    faults: &mut Faults,
) -> (&'t [Entry<'i>], bool) {
    let found = match &node.kind {
        Kind::Mapping(entries) => return (entries, false),
        Kind::Refused => return (&[], true),
        Kind::Scalar(scalar) if scalar.is_null() => return (&[], false),
        Kind::Scalar(scalar) => quote(&scalar.text),
        Kind::Sequence(_) => String::from("a list"),
    };
    faults.error(
        "inventory::wrong_type",
        node.span,
        format!("{what} must be a map of `key: value`"),
        format!("{found} stands here"),
        match &node.kind {
            Kind::Sequence(_) => "write names as keys, without the leading `-`",
            _ if found.contains(':') => "write `key: value`, with a space after the colon",
            _ => "write lines of `key: value` below it, or `{key: value}`",
        },
    );
    (&[], true)
}
