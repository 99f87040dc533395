//! The collection that every step of loading reports to.

use std::collections::HashSet;
use std::sync::Arc;

use super::model::{Origin, Sourced};
use super::tree::{At, FileId, Span};
use crate::diagnostic::{Diagnostic, Diagnostics, Label};

/// Where a fault that is said once was said: its code and words, file, line and column.
type Said = (&'static str, String, Option<Arc<str>>, usize, usize);

/// Collects faults of all files and knows their names.
#[derive(Debug, Default)]
pub(super) struct Faults {
    files: Vec<Arc<str>>,
    found: Diagnostics,
    said: HashSet<Said>,
}

impl Faults {
    /// A further file that faults may lie in, by the name that messages use.
    pub(super) fn add_file(&mut self, name: Arc<str>) -> FileId {
        let id = u16::try_from(self.files.len()).unwrap_or(u16::MAX);
        self.files.push(name);
        FileId(id)
    }

    fn name_of(&self, file: FileId) -> Arc<str> {
        let name = self.files.get(usize::from(file.0));
        name.cloned().unwrap_or_default()
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// Adds what several profiles or hosts inherit, the first time.
    pub(super) fn once(&mut self, diagnostic: Diagnostic) {
        let place = diagnostic.place();
        let (line, column) = place.map_or((0, 0), |label| (label.line, label.column));
        let file = place.map(|label| label.file.clone());
        let key = (
            diagnostic.code,
            diagnostic.message.clone(),
            file,
            line,
            column,
        );
        if self.is_full() || self.said.insert(key) {
            self.push(diagnostic);
        }
    }

    /// Whether it is still worth the work to look for a nearest name.
    pub(super) fn is_full(&self) -> bool {
        self.found.is_full()
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.errors() > 0
    }

    /// Reports an error at one place.
    pub(super) fn error(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        text: impl Into<String>,
        help: impl Into<String>,
    ) {
        let label = self.primary(span, text);
        let diagnostic = Diagnostic::error(code, message).with_label(label);
        self.push(diagnostic.with_help(help));
    }

    /// The place of a fault.
    pub(super) fn primary(&self, span: Span, text: impl Into<String>) -> Label {
        Label {
            primary: true,
            ..self.context(span, text)
        }
    }

    /// A place that explains a fault.
    pub(super) fn context(&self, span: Span, text: impl Into<String>) -> Label {
        Label {
            file: self.name_of(span.file),
            line: span.line as usize,
            column: span.column as usize,
            length: span.length as usize,
            text: text.into(),
            primary: false,
        }
    }

    /// A span as the model keeps it.
    pub(super) fn origin(&self, span: Span, layer: &Arc<str>) -> Origin {
        Origin {
            file: self.name_of(span.file),
            line: span.line as usize,
            column: span.column as usize,
            layer: layer.clone(),
        }
    }

    /// The span of a value that stands plainly at its origin.
    pub(super) fn span_of(&self, at: &Sourced<String>) -> Option<Span> {
        let origin = at.origin.as_ref()?;
        let file = self.files.iter().position(|name| *name == origin.file)?;
        let file = FileId(u16::try_from(file).ok()?);
        let length = at.value.chars().count();
        Some(Span::new(file, origin.line, origin.column, length))
    }

    /// A value as the model keeps it.
    pub(super) fn sourced<T>(&self, at: At<T>, layer: &Arc<str>) -> Sourced<T> {
        Sourced {
            value: at.value,
            origin: Some(self.origin(at.span, layer)),
        }
    }

    pub(super) fn into_diagnostics(self) -> Diagnostics {
        self.found
    }
}
