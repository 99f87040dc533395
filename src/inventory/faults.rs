//! The collection that every step of loading reports to.

use std::collections::HashSet;
use std::sync::Arc;

use super::model::{Origin, Sourced};
use super::tree::{At, Span};
use crate::diagnostic::{Diagnostic, Diagnostics, Label};

/// Collects faults of one file and knows its name.
#[derive(Debug)]
pub(super) struct Faults {
    file: Arc<str>,
    found: Diagnostics,
    said: HashSet<(&'static str, String, usize, usize)>,
}

impl Faults {
    pub(super) fn new(file: Arc<str>) -> Self {
        let found = Diagnostics::default();
        let said = HashSet::new();
        Self { file, found, said }
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// Adds what several profiles or hosts inherit, the first time.
    pub(super) fn once(&mut self, diagnostic: Diagnostic) {
        let place = diagnostic.place();
        let (line, column) = place.map_or((0, 0), |label| (label.line, label.column));
        let key = (diagnostic.code, diagnostic.message.clone(), line, column);
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
            file: self.file.clone(),
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
            file: self.file.clone(),
            line: span.line as usize,
            column: span.column as usize,
            layer: layer.clone(),
        }
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
