//! What differs, in words.

use std::fmt::Write;

use super::{Change, Changes, Difference, Fate};

/// Hosts that are named where one change concerns many.
const NAMED: usize = 5;
/// A change is told in so many characters.
const LINE: usize = 500;

impl Changes {
    /// `hosts: 1 added, 2 changed; profiles: 1 changed`.
    pub fn summary(&self) -> String {
        let count = |kind: &str, fate| {
            let changes = self.changes.iter();
            let these = changes.filter(|change| change.kind == kind && change.fate == fate);
            these.count()
        };
        let fates = [
            (Fate::Added, "added"),
            (Fate::Removed, "removed"),
            (Fate::Changed, "changed"),
        ];
        let kinds = [
            ("host", "hosts"),
            ("profile", "profiles"),
            ("network", "networks"),
            ("site", "site"),
        ];
        let of_kind = |(kind, name)| {
            let fates = fates.map(|(fate, word)| (count(kind, fate), word));
            let fates = fates.into_iter().filter(|(count, _)| *count > 0);
            let fates: Vec<_> = fates
                .map(|(count, word)| format!("{count} {word}"))
                .collect();
            (!fates.is_empty()).then(|| format!("{name}: {}", fates.join(", ")))
        };
        let kinds: Vec<_> = kinds.into_iter().filter_map(of_kind).collect();
        match kinds.is_empty() {
            true => "nothing changed".to_owned(),
            false => kinds.join("; "),
        }
    }

    /// A line for each change, at most so many, each with a line break at its end.
    pub fn lines(&self, most: usize) -> String {
        let mut text = String::new();
        for change in self.changes.iter().take(most) {
            text += &change.line();
        }
        let more = self.changes.len().saturating_sub(most);
        if more > 0 {
            let _ = writeln!(text, "  and {more} more");
        }
        for (host, attempt) in self.under_way.iter().take(most) {
            let applies = match self.ended.contains(host) {
                true => "removed or with another MAC or address, it gets no more of its boot",
                false => "applies at its next boot",
            };
            let _ = writeln!(text, "  {host} is booting (attempt {attempt}): {applies}");
        }
        text
    }
}

impl Change {
    fn line(&self) -> String {
        let sign = match self.fate {
            Fate::Added => '+',
            Fate::Removed => '-',
            Fate::Changed => '~',
        };
        let values: Vec<_> = self
            .values
            .iter()
            .map(|value| value.text(self.fate))
            .collect();
        let values = values.join("; ");
        // Terminals take control characters for commands.
        let shown = values.chars().filter(|c| !c.is_control());
        let values: String = shown.take(LINE).collect();
        let what = match self.kind {
            "site" => String::new(),
            kind => format!(" {kind} {}", self.name),
        };
        format!("{sign}{what} {values}{}\n", self.concerns())
    }

    fn concerns(&self) -> String {
        let named: Vec<_> = self.hosts.iter().take(NAMED).map(String::as_str).collect();
        let more = match self.hosts.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        match named.is_empty() {
            true => String::new(),
            false => format!("  ({}{more})", named.join(", ")),
        }
    }
}

impl Difference {
    /// `kernel: debian -> edge`; of a list that adds up, what came and went.
    fn text(&self, fate: Fate) -> String {
        let key = &self.key;
        let (old, new) = (self.old.join(" "), self.new.join(" "));
        match (fate, self.old.is_empty(), self.new.is_empty()) {
            (Fate::Added, ..) => format!("{key} {new}"),
            (Fate::Removed, ..) => format!("{key} {old}"),
            (_, true, _) => format!("{key}: {new} (new)"),
            (_, _, true) => format!("{key}: {old} (gone)"),
            _ => format!("{key}: {old} -> {new}"),
        }
    }
}
