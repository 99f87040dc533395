//! Faults as people read them: the lines around each place, with what is marked on them.

use annotate_snippets::{
    Annotation, AnnotationKind, Element, Group, Level, Origin as Arrow, Renderer, Snippet,
    normalize_untrusted_str,
};

use super::{Diagnostic, Label, Severity, Sources};

/// Labels of one file closer than this share a snippet; between, lines are folded.
const MAX_GAP: usize = 40;

/// Renders to text, an empty line between two, without a final line break.
///
/// Control characters of the file never reach the terminal. Whether to colour is the caller's
/// question (`NO_COLOR`, a terminal or not).
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, colour: bool) -> String {
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let one = |diagnostic| renderer.render(&[group(diagnostic, sources)]);
    diagnostics.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

fn group<'a>(diagnostic: &'a Diagnostic, sources: &'a Sources) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = harmless(&diagnostic.message);
    let places = clusters(&diagnostic.labels);
    let group = level
        .primary_title(title)
        .id(diagnostic.code)
        .elements(places.into_iter().map(|labels| element(labels, sources)));
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(harmless(help))),
        None => group,
    }
}

/// What a text says, without what a terminal takes for commands: a crate leaves out the older ones.
fn harmless(text: &str) -> String {
    super::without_c1(&normalize_untrusted_str(text))
}

/// Labels that stand near each other, the primary's cluster first.
fn clusters(labels: &[Label]) -> Vec<Vec<&Label>> {
    let mut sorted: Vec<&Label> = labels.iter().collect();
    sorted.sort_by_key(|label| (label.file.clone(), label.line, label.column));
    let mut clusters: Vec<Vec<&Label>> = Vec::new();
    for label in sorted {
        match clusters.last_mut() {
            Some(last) if last.last().is_some_and(|before| near(before, label)) => last.push(label),
            _ => clusters.push(vec![label]),
        }
    }
    clusters.sort_by_key(|cluster| !cluster.iter().any(|label| label.primary));
    clusters
}

fn near(before: &Label, label: &Label) -> bool {
    before.file == label.file && label.line - before.line <= MAX_GAP
}

fn element<'a>(labels: Vec<&'a Label>, sources: &'a Sources) -> Element<'a> {
    snippet(&labels, sources).unwrap_or_else(|| bare_place(&labels))
}

/// Without its text a place is still worth its line and column.
fn bare_place<'a>(labels: &[&'a Label]) -> Element<'a> {
    let place = labels.first().map(|label| {
        Arrow::path(&*label.file)
            .line(label.line)
            .char_column(label.column)
    });
    place.unwrap_or_else(|| Arrow::path("")).into()
}

fn snippet<'a>(labels: &[&'a Label], sources: &'a Sources) -> Option<Element<'a>> {
    let (first, last) = (labels.first()?, labels.last()?);
    let source = sources.0.get(&first.file)?;
    let (start, text) = source.slice(first.line, last.line)?;
    let annotation = |label: &&'a Label| {
        let range = source.range(label)?;
        Some(annotate(
            label,
            range.start - start..range.end.max(range.start) - start,
        ))
    };
    let annotations: Vec<_> = labels.iter().filter_map(annotation).collect();
    let snippet = Snippet::source(text)
        .line_start(first.line)
        .path(&*first.file);
    Some(snippet.annotations(annotations).into())
}

fn annotate(label: &Label, range: std::ops::Range<usize>) -> Annotation<'_> {
    let kind = if label.primary {
        AnnotationKind::Primary
    } else {
        AnnotationKind::Context
    };
    let annotation = kind.span(range);
    if label.text.is_empty() {
        annotation
    } else {
        annotation.label(harmless(&label.text))
    }
}
