//! A YAML text in pieces: what stands from which byte to which. What lies between the pieces,
//! comments and white space, is nobody's, and stays.

use std::ops::Range;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::super::tree;

/// One value.
#[derive(Debug)]
pub(super) struct Piece {
    /// From the first byte to behind the last; of a block collection behind its last value.
    pub(super) range: Range<usize>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Scalar {
        text: String,
        /// Whether it begins with `|` or `>`.
        block: bool,
        plain: bool,
    },
    Sequence(Vec<Piece>),
    Mapping(Vec<Member>),
}

/// One key with its value.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) key: String,
    pub(super) key_range: Range<usize>,
    pub(super) value: Piece,
}

impl Member {
    /// Behind the value, or behind the colon's key where there is none.
    pub(super) fn end(&self) -> usize {
        self.value.range.end.max(self.key_range.end)
    }
}

impl Piece {
    /// The piece that is the whole document; `None`: it is empty or no YAML.
    pub(super) fn of(text: &str) -> Option<Self> {
        let mut reader = Reader {
            parser: Parser::new_from_str_with_options(text, tree::options()),
        };
        reader.document().ok().flatten()
    }

    pub(super) fn members(&self) -> &[Member] {
        match &self.kind {
            Kind::Mapping(members) => members,
            _ => &[],
        }
    }

    pub(super) fn member(&self, key: &str) -> Option<&Member> {
        self.members().iter().find(|member| member.key == key)
    }

    /// YAML's null: nothing, `~` or `null`, without quotes.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true, .. }
            if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Whether it stands in brackets.
    pub(super) fn is_flow(&self, text: &str) -> bool {
        let first = text.as_bytes().get(self.range.start);
        !matches!(self.kind, Kind::Scalar { .. }) && matches!(first, Some(b'{' | b'['))
    }

    /// What it means, without places.
    pub(super) fn meaning(&self) -> Meaning {
        match &self.kind {
            _ if self.is_null() => Meaning::Null,
            Kind::Scalar { text, .. } => Meaning::Text(text.clone()),
            Kind::Sequence(items) => Meaning::List(items.iter().map(Self::meaning).collect()),
            Kind::Mapping(members) => {
                let pair = |member: &Member| (member.key.clone(), member.value.meaning());
                Meaning::Map(members.iter().map(pair).collect())
            }
        }
    }
}

/// A document without its writing, to compare two of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    Null,
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Meaning {
    /// The same with a value put in, or taken out, at a path of keys and numbers of items.
    pub(super) fn with(self, path: &[String], value: Option<&Self>) -> Self {
        let Some((key, rest)) = path.split_first() else {
            return value.cloned().unwrap_or(Self::Null);
        };
        let mut members = match self {
            Self::Map(members) => members,
            Self::List(mut items) => {
                let item = key
                    .parse()
                    .ok()
                    .and_then(|index: usize| items.get_mut(index));
                if let Some(item) = item {
                    *item = std::mem::replace(item, Self::Null).with(rest, value);
                }
                return Self::List(items);
            }
            _ => Vec::new(),
        };
        let found = members.iter_mut().find(|(known, _)| known == key);
        match (found, value) {
            (Some((_, old)), _) if !rest.is_empty() || value.is_some() => {
                *old = std::mem::replace(old, Self::Null).with(rest, value);
            }
            (Some(_), _) => members.retain(|(known, _)| known != key),
            (None, Some(_)) => members.push((key.clone(), Self::Null.with(rest, value))),
            (None, None) => {}
        }
        Self::Map(members)
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
}

type Spanned<'t> = (Event<'t>, Span);

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Option<Spanned<'t>>, ScanError> {
        self.parser.next().transpose()
    }

    fn document(&mut self) -> Result<Option<Piece>, ScanError> {
        while let Some((event, span)) = self.next()? {
            if !matches!(event, Event::StreamStart | Event::DocumentStart(..)) {
                return self.piece(event, span);
            }
        }
        Ok(None)
    }

    /// The value that this event begins. Depth is bounded by the parser's own limits.
    fn piece(&mut self, event: Event<'t>, span: Span) -> Result<Option<Piece>, ScanError> {
        let Some(mut range) = span.byte_range() else {
            return Ok(None);
        };
        let kind = match event {
            Event::Scalar(text, style, ..) => Kind::Scalar {
                text: text.into_owned(),
                block: matches!(style, ScalarStyle::Literal | ScalarStyle::Folded),
                plain: style == ScalarStyle::Plain,
            },
            Event::SequenceStart(..) => {
                let (items, end) = self.sequence()?;
                let last = items.last().map_or(range.start, |item| item.range.end);
                range.end = end.max(last);
                Kind::Sequence(items)
            }
            Event::MappingStart(..) => {
                let (members, end) = self.mapping()?;
                let last = members.last().map_or(range.start, Member::end);
                range.end = end.max(last);
                Kind::Mapping(members)
            }
            _ => return Ok(None),
        };
        Ok(Some(Piece { range, kind }))
    }

    /// The items, and behind the bracket; 0 where there is none.
    fn sequence(&mut self) -> Result<(Vec<Piece>, usize), ScanError> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                return Ok((items, bracket(span)));
            }
            items.extend(self.piece(event, span)?);
        }
        Ok((items, 0))
    }

    fn mapping(&mut self) -> Result<(Vec<Member>, usize), ScanError> {
        let mut members = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                return Ok((members, bracket(span)));
            }
            let key = self.piece(event, span)?;
            let Some((event, span)) = self.next()? else {
                break;
            };
            let value = self.piece(event, span)?;
            if let (Some(key), Some(value)) = (key, value)
                && let Kind::Scalar { text, .. } = key.kind
            {
                members.push(Member {
                    key: text,
                    key_range: key.range,
                    value,
                });
            }
        }
        Ok((members, 0))
    }
}

/// Where a collection ends that has brackets. The end of one without is an empty span that lies
/// wherever the next token is.
fn bracket(span: Span) -> usize {
    let range = span.byte_range().unwrap_or_default();
    if range.is_empty() { 0 } else { range.end }
}
