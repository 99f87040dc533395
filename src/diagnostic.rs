//! One shape for every fault that an operator can mend, and one renderer.
//!
//! A [`Diagnostic`] names the fault, the places that show it and what to do. [`Diagnostics`]
//! collects them with the [`Sources`] they point into, for text or JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub use render::render;

mod render;

/// Diagnostics of one severity that a collection keeps; the rest is only counted, so a hostile
/// file can't fill memory.
const MAX_KEPT: usize = 200;

/// One fault, or one thing that is likely to be a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable id: `room::what`, such as `inventory::unknown_key`.
    pub code: &'static str,
    /// Whether it refuses the inventory.
    pub severity: Severity,
    /// One sentence without a full stop, naming the object.
    pub message: String,
    /// Places that show the fault; empty if it stands in no file.
    pub labels: Vec<Label>,
    /// The next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is served with this.
    Error,
    /// It is served; the operator should look.
    Warning,
}

/// A stretch of one line with a word about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Label {
    /// The file as the operator named it.
    pub file: Arc<str>,
    /// 1-based line.
    pub line: usize,
    /// 1-based column, in characters.
    pub column: usize,
    /// Length in characters; what lies beyond the line's end is not marked.
    pub length: usize,
    /// What is to be seen here; may be empty.
    pub text: String,
    /// Whether this is the place of the fault, and not one that explains it.
    pub primary: bool,
}

impl Diagnostic {
    /// An error that so far has no place.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, message.into())
    }

    /// A warning that so far has no place.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, message.into())
    }

    fn new(code: &'static str, severity: Severity, message: String) -> Self {
        Self {
            code,
            severity,
            message,
            labels: Vec::new(),
            help: None,
        }
    }

    /// Adds a place.
    #[must_use]
    pub fn with_label(mut self, label: Label) -> Self {
        self.labels.push(label);
        self
    }

    /// Sets the next step.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The place of the fault: the first primary label, else the first label.
    pub fn place(&self) -> Option<&Label> {
        let primary = self.labels.iter().find(|label| label.primary);
        primary.or(self.labels.first())
    }

    /// Orders by file, line and column; what has no place comes last.
    pub fn by_place(&self, other: &Self) -> std::cmp::Ordering {
        self.sort_key().cmp(&other.sort_key())
    }

    fn sort_key(&self) -> (bool, &str, usize, usize) {
        self.place().map_or((true, "", 0, 0), |label| {
            (false, &label.file, label.line, label.column)
        })
    }
}

/// The texts that labels point into, by file name.
#[derive(Debug, Clone, Default)]
pub struct Sources(BTreeMap<Arc<str>, Arc<Source>>);

/// With U+FFFD in place of each of U+0080 to U+009F.
fn without_c1(text: &str) -> String {
    text.replace(|c| ('\u{80}'..='\u{9f}').contains(&c), "\u{fffd}")
}

#[derive(Debug)]
struct Source {
    text: String,
    line_starts: Vec<usize>,
}

impl Sources {
    /// Keeps a text under the name that labels use. Terminals take U+0080 to U+009F for commands, and no
    /// renderer leaves them out as it does the older ones: they are kept as U+FFFD.
    pub fn insert(&mut self, file: Arc<str>, text: String) {
        let text = without_c1(&text);
        let line_starts = line_starts(&text);
        self.0.insert(file, Arc::new(Source { text, line_starts }));
    }

    /// A line without its break; `None` if file or line is not known. Lines count from 1.
    pub fn line(&self, file: &str, line: usize) -> Option<&str> {
        let source = self.0.get(file)?;
        source.slice(line, line).map(|(_, text)| text)
    }

    /// What a label marks; `None` if its place is not known.
    pub fn at(&self, label: &Label) -> Option<&str> {
        let source = self.0.get(&label.file)?;
        source.text.get(source.range(label)?)
    }
}

/// YAML ends a line at LF, CR LF and a lone CR (YAML 1.2.2, 5.4).
fn line_starts(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let ends_line = |&index: &usize| match bytes.get(index) {
        Some(b'\n') => true,
        Some(b'\r') => bytes.get(index + 1) != Some(&b'\n'),
        _ => false,
    };
    let breaks = (0..bytes.len()).filter(ends_line);
    std::iter::once(0).chain(breaks.map(|at| at + 1)).collect()
}

impl Source {
    /// The text of lines `first..=last` without the last break, and the offset it starts at.
    fn slice(&self, first: usize, last: usize) -> Option<(usize, &str)> {
        let start = *self.line_starts.get(first.checked_sub(1)?)?;
        let end = self.line_starts.get(last).copied();
        let text = self.text.get(start..end.unwrap_or(self.text.len()))?;
        Some((start, text.trim_end_matches(['\r', '\n'])))
    }

    /// The byte range of a label, clamped to its line.
    fn range(&self, label: &Label) -> Option<std::ops::Range<usize>> {
        let (start, line) = self.slice(label.line, label.line)?;
        let offset = |column: usize| {
            line.char_indices()
                .nth(column)
                .map_or(line.len(), |(at, _)| at)
        };
        let first = label.column.saturating_sub(1);
        Some(start + offset(first)..start + offset(first.saturating_add(label.length)))
    }
}

/// Faults collected over one run, with the texts they point into.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
    sources: Sources,
    errors: usize,
    warnings: usize,
}

/// [`Diagnostics`] as JSON; `schema` is 1.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    schema: u32,
    errors: usize,
    warnings: usize,
    omitted: usize,
    diagnostics: &'a [Diagnostic],
}

impl Diagnostics {
    /// An empty collection over these texts.
    pub fn new(sources: Sources) -> Self {
        Self {
            sources,
            ..Self::default()
        }
    }

    /// Adds one; beyond 200 of a severity it is only counted.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let count = match diagnostic.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= MAX_KEPT {
            self.items.push(diagnostic);
        }
    }

    /// Whether a further error would only be counted.
    pub fn is_full(&self) -> bool {
        self.errors >= MAX_KEPT
    }

    /// Sorts by file, line and column; what has no place comes last.
    pub fn sort(&mut self) {
        self.items.sort_by(Diagnostic::by_place);
    }

    /// All of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.items.iter()
    }

    /// Gives the kept ones away.
    pub fn into_vec(self) -> Vec<Diagnostic> {
        self.items
    }

    /// Sets the texts that labels point into.
    pub fn set_sources(&mut self, sources: Sources) {
        self.sources = sources;
    }

    /// The texts that labels point into.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// How many errors were found.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many warnings were found.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// How many were found beyond those kept.
    pub fn omitted(&self) -> usize {
        self.errors + self.warnings - self.items.len()
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// `2 errors, 1 warning`, and how many more are not shown.
    pub fn summary(&self) -> String {
        let counts = [(self.errors, "error"), (self.warnings, "warning")];
        let found = counts.into_iter().filter(|(count, _)| *count > 0);
        let found: Vec<_> = found.map(|(count, noun)| counted(count, noun)).collect();
        let mut text = found.join(", ");
        if text.is_empty() {
            text.push_str("no errors");
        }
        if self.omitted() > 0 {
            text += &format!(" ({} of them not shown)", self.omitted());
        }
        text
    }

    /// Text for a person: every fault with its source line, an empty line between two.
    pub fn to_text(&self, colour: bool) -> String {
        render(&self.items, &self.sources, colour)
    }

    /// What `--json` prints.
    pub fn report(&self) -> Report<'_> {
        Report {
            schema: 1,
            errors: self.errors,
            warnings: self.warnings,
            omitted: self.omitted(),
            diagnostics: &self.items,
        }
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.push(item));
    }
}

/// Plain text with the summary as its last line.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\n{}", self.to_text(false), self.summary())
    }
}

impl std::error::Error for Diagnostics {}

/// `1 error`, `2 errors`.
fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(line: usize, column: usize, length: usize) -> Label {
        Label {
            file: Arc::from("f"),
            line,
            column,
            length,
            text: String::from("here"),
            primary: true,
        }
    }

    fn sources(text: &str) -> Sources {
        let mut sources = Sources::default();
        sources.insert(Arc::from("f"), text.to_owned());
        sources
    }

    #[test]
    fn lines_end_as_yaml_ends_them() {
        let sources = sources("a\nb\r\nc\rd");
        let lines: Vec<_> = (1..=4).map(|n| sources.line("f", n).unwrap()).collect();
        assert_eq!(lines, ["a", "b", "c", "d"]);
        assert_eq!(sources.line("f", 5), None);
        assert_eq!(sources.line("f", 0), None);
        assert_eq!(sources.line("g", 1), None);
    }

    #[test]
    fn columns_count_characters() {
        let shown = render(
            &[Diagnostic::error("a::b", "bad").with_label(label(2, 3, 2))],
            &sources("x\nöä: zü\n"),
            false,
        );
        assert!(shown.contains("f:2:3"), "{shown}");
        assert!(shown.contains("2 | öä: zü\n  |   ^^ here"), "{shown}");
        let sources = sources("x\nöä: zü\n");
        assert_eq!(sources.at(&label(2, 5, 9)), Some("zü"));
        assert_eq!(sources.at(&label(3, 1, 1)), Some(""));
        assert_eq!(sources.at(&label(4, 1, 1)), None);
    }

    #[test]
    fn places_outside_the_text_are_still_named() {
        let text = sources("x\n");
        for label in [
            label(9, 1, 1),
            label(1, 99, 99),
            label(0, 0, 0),
            label(1, usize::MAX, 1),
        ] {
            let fault = Diagnostic::error("a::b", "bad").with_label(label);
            assert!(render(&[fault], &text, false).contains("error[a::b]: bad"));
        }
        let fault = Diagnostic::error("a::b", "bad").with_label(label(3, 4, 1));
        let shown = render(&[fault], &Sources::default(), false);
        assert!(shown.contains("f:3:4"), "{shown}");
    }

    #[test]
    fn control_characters_stay_out_of_the_terminal() {
        let fault = Diagnostic::error("a::b", "bad \u{1b}[31m")
            .with_label(label(1, 1, 4))
            .with_help("x\u{7}y\u{9b}31m");
        let shown = render(&[fault], &sources("a\u{1b}[31m\u{9b}31mb\n"), false);
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{shown:?}");
    }

    #[test]
    fn errors_are_never_crowded_out_by_warnings() {
        let mut found = Diagnostics::default();
        found.extend((0..500).map(|_| Diagnostic::warning("a::b", "w")));
        found.push(Diagnostic::error("a::b", "e"));
        assert_eq!(
            (found.errors(), found.warnings(), found.omitted()),
            (1, 500, 300)
        );
        assert!(found.iter().any(|item| item.severity == Severity::Error));
        assert_eq!(
            found.summary(),
            "1 error, 500 warnings (300 of them not shown)"
        );
    }

    #[test]
    fn what_has_no_place_comes_last() {
        let mut found = Diagnostics::default();
        found.push(Diagnostic::error("a::none", "none"));
        found.push(Diagnostic::error("a::second", "x").with_label(label(2, 1, 1)));
        found.push(Diagnostic::error("a::first", "x").with_label(label(1, 9, 1)));
        found.sort();
        let codes: Vec<_> = found.iter().map(|item| item.code).collect();
        assert_eq!(codes, ["a::first", "a::second", "a::none"]);
    }
}
