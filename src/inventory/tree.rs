//! YAML text to a tree in which every node knows its place.
//!
//! The tree keeps what a scalar looked like (quoted or plain), because YAML 1.1 readers and
//! people disagree on plain ones, and it goes on after a duplicate key, so that one run shows
//! every fault. Anchors, aliases, merge keys and tags are refused: profiles do what they do,
//! with names, and a file without aliases can't be an alias bomb.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_saphyr::granit_parser::{self as yaml, ErrorKind, Event, ScalarStyle, ScanError};

use super::faults::Faults;
use crate::diagnostic::Diagnostic;

/// Collections nested deeper than this are a mistake or an attack; the file needs five levels.
const MAX_DEPTH: usize = 32;

/// Values in one file; 10,000 hosts are some 150,000. Bounds the memory of a hostile file.
const MAX_NODES: usize = 1_000_000;

/// Refusals of one kind that are shown.
const MAX_REFUSALS: usize = 5;

/// What to do instead of anchors, aliases and merge keys.
const SHARE: &str =
    "write the value out, or put what is shared in a profile and name it with `extends:`";

/// A file of the inventory, by its place among those that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct FileId(pub(super) u16);

/// A stretch of a file; line and column count from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) file: FileId,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) length: u32,
}

impl Span {
    pub(super) fn new(file: FileId, line: usize, column: usize, length: usize) -> Self {
        // The file is at most 16 MiB, so these always fit.
        let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            file,
            line: narrow(line),
            column: narrow(column),
            length: narrow(length),
        }
    }

    /// What spans several lines is cut to its first character.
    fn of(file: FileId, span: yaml::Span) -> Self {
        let one_line = span.start.line() == span.end.line();
        let length = if one_line { span.len().max(1) } else { 1 };
        Self::new(file, span.start.line(), span.start.col() + 1, length)
    }
}

/// A value and where it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// One YAML node.
#[derive(Debug)]
pub(super) struct Node<'i> {
    pub(super) span: Span,
    pub(super) kind: Kind<'i>,
}

#[derive(Debug)]
pub(super) enum Kind<'i> {
    Scalar(Scalar<'i>),
    Sequence(Vec<Node<'i>>),
    Mapping(Vec<Entry<'i>>),
    /// Its fault is reported already.
    Refused,
}

/// A scalar's text after YAML's escapes, and whether it stood without quotes.
#[derive(Debug, Clone)]
pub(super) struct Scalar<'i> {
    pub(super) text: Cow<'i, str>,
    pub(super) plain: bool,
}

impl Scalar<'_> {
    /// YAML's null: nothing, `~` or `null`, without quotes.
    pub(super) fn is_null(&self) -> bool {
        self.plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry<'i> {
    pub(super) key: Scalar<'i>,
    pub(super) key_span: Span,
    pub(super) node: Node<'i>,
    /// The key stood before in the same map; its fault is reported already.
    pub(super) duplicate: bool,
}

impl Node<'_> {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.is_null())
    }
}

/// Parses one document. `None`: it is empty, or it is not YAML and that is reported.
pub(super) fn parse<'i>(file: FileId, text: &'i str, faults: &mut Faults) -> Option<Node<'i>> {
    let mut builder = Builder {
        file,
        parser: yaml::Parser::new_from_str_with_options(text, options()),
        nodes: 0,
        refused: HashMap::new(),
        faults,
    };
    match builder.document() {
        Ok(root) => root,
        Err(error) => {
            let diagnostic = syntax_fault(file, builder.faults, &error);
            builder.faults.push(diagnostic);
            None
        }
    }
}

pub(super) fn options() -> yaml::Options {
    let mut options = yaml::Options::default();
    options.disallow_directives = true;
    options.emit_unresolved_aliases = true;
    options.emit_anchor_events = true;
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    options.set_emit_comments(false);
    options
}

struct Builder<'i, 'f> {
    file: FileId,
    parser: yaml::Parser<'i, yaml::StrInput<'i>>,
    nodes: usize,
    /// How often each refusal was met.
    refused: HashMap<&'static str, usize>,
    faults: &'f mut Faults,
}

type Spanned<'i> = (Event<'i>, yaml::Span);

impl<'i> Builder<'i, '_> {
    /// The next event but anchors, which are reported and passed over.
    fn next(&mut self) -> Result<Option<Spanned<'i>>, ScanError> {
        loop {
            match self.parser.next().transpose()? {
                Some((Event::Anchor(..), span)) => {
                    let message = "anchors (`&name`) are not supported";
                    let span = Span::of(self.file, span);
                    self.refuse("inventory::yaml_feature", span, message, SHARE);
                }
                next => return Ok(next),
            }
        }
    }

    fn document(&mut self) -> Result<Option<Node<'i>>, ScanError> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::DocumentStart(..) if root.is_some() => {
                    self.refuse(
                        "inventory::several_documents",
                        Span::of(self.file, span),
                        "a second YAML document begins here",
                        "keep everything in one document: remove the `---`",
                    );
                    break;
                }
                Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(..)
                | Event::DocumentEnd => {}
                event => root = Some(self.node(event, span)?),
            }
        }
        Ok(root)
    }

    /// The node that this event begins. Depth is bounded by the parser's own limits.
    fn node(&mut self, event: Event<'i>, span: yaml::Span) -> Result<Node<'i>, ScanError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("it has more than {MAX_NODES} values");
            return Err(ScanError::new(span.start, message));
        }
        self.refuse_decoration(&event, span);
        let kind = match event {
            Event::Scalar(text, style, ..) => Kind::Scalar(Scalar {
                text,
                plain: style == ScalarStyle::Plain,
            }),
            Event::SequenceStart(..) => Kind::Sequence(self.sequence()?),
            Event::MappingStart(..) => Kind::Mapping(self.mapping()?),
            _ => Kind::Refused,
        };
        let span = Span::of(self.file, span);
        Ok(Node { span, kind })
    }

    fn sequence(&mut self) -> Result<Vec<Node<'i>>, ScanError> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, span)?);
        }
        Ok(items)
    }

    fn mapping(&mut self) -> Result<Vec<Entry<'i>>, ScanError> {
        let mut entries = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span)?;
            let Some((event, span)) = self.next()? else {
                break;
            };
            let node = self.node(event, span)?;
            entries.extend(self.entry(key, node));
        }
        mark_duplicates(&mut entries, self.faults);
        Ok(entries)
    }

    /// A key must be text; anything else is reported and its value dropped.
    fn entry(&mut self, key: Node<'i>, node: Node<'i>) -> Option<Entry<'i>> {
        let key_span = key.span;
        match key.kind {
            Kind::Scalar(scalar) if scalar.plain && scalar.text == "<<" => {
                let message = "merge keys (`<<`) are not supported";
                self.refuse("inventory::yaml_feature", key_span, message, SHARE);
                None
            }
            Kind::Scalar(key) if !key.is_null() => Some(Entry {
                key,
                key_span,
                node,
                duplicate: false,
            }),
            Kind::Refused => None,
            _ => {
                let help = "write a name before the colon; quote it if it is a word of YAML's";
                self.refuse(
                    "inventory::bad_key",
                    key_span,
                    "a key is empty or not a text",
                    help,
                );
                None
            }
        }
    }

    /// Reports an alias, or a tag on a node.
    fn refuse_decoration(&mut self, event: &Event<'i>, span: yaml::Span) {
        match event {
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let message = "aliases (`*name`) are not supported";
                let span = Span::of(self.file, span);
                self.refuse("inventory::yaml_feature", span, message, SHARE);
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => {
                let place = Span::of(self.file, span.tag_span().unwrap_or(span));
                let message = "tags (`!name`) are not supported";
                let help = "remove the tag; to make a text of a value, quote it";
                self.refuse("inventory::yaml_feature", place, message, help);
            }
            _ => {}
        }
    }

    /// Reports the first few of a kind: they are mended by one decision.
    fn refuse(&mut self, code: &'static str, span: Span, message: &'static str, help: &str) {
        let count = self.refused.entry(message).or_default();
        *count += 1;
        if *count > MAX_REFUSALS {
            return;
        }
        let label = self.faults.primary(span, "");
        self.faults.push(
            Diagnostic::error(code, message)
                .with_label(label)
                .with_help(help),
        );
    }
}

/// Reports keys that stand before in the same map, and marks them; those marked stay as they are.
pub(super) fn mark_duplicates(entries: &mut [Entry<'_>], faults: &mut Faults) {
    let mut seen: HashMap<Cow<'_, str>, Span> = HashMap::with_capacity(entries.len());
    for entry in entries.iter_mut().filter(|entry| !entry.duplicate) {
        let Some(first) = seen.get(&entry.key.text) else {
            seen.insert(entry.key.text.clone(), entry.key_span);
            continue;
        };
        entry.duplicate = true;
        let name = super::suggest::quote(&entry.key.text);
        let message = format!("{name} is written twice");
        let fault = Diagnostic::error("inventory::duplicate_key", message)
            .with_label(faults.primary(entry.key_span, "again here"))
            .with_label(faults.context(*first, "first here"))
            .with_help("keep one of the two; if they are two things, give them two names");
        faults.push(fault);
    }
}

/// The parser stops here: what stands below is not YAML any more.
fn syntax_fault(file: FileId, faults: &Faults, error: &ScanError) -> Diagnostic {
    let marker = error.marker();
    let span = Span::new(file, marker.line().max(1), marker.col() + 1, 1);
    let diagnostic = Diagnostic::error(
        "inventory::syntax",
        format!("the file can't be read as YAML: {}", error.info()),
    )
    .with_label(faults.primary(span, "the rest of the file was not read"));
    match syntax_help(error.kind()) {
        Some(help) => diagnostic.with_help(help),
        None => diagnostic,
    }
}

fn syntax_help(kind: &ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar => "indent with spaces: YAML does not allow tabs",
        ErrorKind::UnclosedQuotedScalar | ErrorKind::InvalidQuotedScalarIndent => {
            "close the quote, here or above"
        }
        ErrorKind::UnexpectedCharacter { .. } => {
            "quote a value that begins with a character of YAML's own: \"@r1\""
        }
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::MismatchedFlowCollectionEnd { .. }
        | ErrorKind::MisplacedFlowCollectionEnd
        | ErrorKind::InvalidColonPlacement
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator => {
            "look for a missing comma, or a bracket that is not closed, here or just above"
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockSequenceEntry => {
            "keys of one map begin in the same column: compare with the lines above"
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::SimpleKeyExpected => {
            "write one `key: value` per line; quote a value that holds `: `"
        }
        ErrorKind::RecursionLimitExceeded => "the inventory needs no more than five levels",
        ErrorKind::DirectiveDisallowed => "remove the line that begins with `%`",
        _ => return None,
    })
}
