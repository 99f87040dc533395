//! Which part of a file a request wants, and whether it wants it at all (RFC 9110 sections 13 and 14).

use std::ops::Range;

use axum::http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};
use axum::http::{HeaderMap, Method};

/// What is wanted of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes.
    Part(Range<usize>),
    /// Bytes beyond its end.
    Beyond,
    /// Nothing: the client has this version.
    Nothing,
}

/// What a GET or HEAD asks of a file with this entity tag and size.
pub(super) fn wanted(method: &Method, headers: &HeaderMap, etag: &str, size: usize) -> Wanted {
    if has_version(headers, etag) {
        return Wanted::Nothing;
    }
    // A range is defined for GET alone: HEAD tells of the whole file, which is what UEFI asks it for (section 14.2).
    // A range of another version than the client holds would mix two files; dates are not told, so none matches.
    let mut same = headers.get_all(IF_RANGE).iter();
    if method != Method::GET || !same.all(|tag| tag.as_bytes() == etag.as_bytes()) {
        return Wanted::Whole;
    }
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    range.map_or(Wanted::Whole, |text| range_of(text, size))
}

/// `If-None-Match`: a list, `*`, and tags compared weakly (section 13.1.2). Ours hold no comma.
fn has_version(headers: &HeaderMap, etag: &str) -> bool {
    let lists = headers.get_all(IF_NONE_MATCH).iter();
    let mut tags = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// One range of bytes (section 14.1.2); several at once, or nonsense, get the whole file, as the RFC allows.
fn range_of(text: &str, size: usize) -> Wanted {
    let Some((unit, (first, last))) = text
        .split_once('=')
        .and_then(|(unit, spec)| Some((unit, spec.split_once('-')?)))
    else {
        return Wanted::Whole;
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    match (number(first), number(last)) {
        (Number::Is(first), Number::Is(last)) if last < first => Wanted::Whole,
        (Number::Is(first), Number::Is(_) | Number::None) if first >= size => Wanted::Beyond,
        (Number::Is(first), Number::Is(last)) => {
            Wanted::Part(first..size.min(last.saturating_add(1)))
        }
        (Number::Is(first), Number::None) => Wanted::Part(first..size),
        (Number::None, Number::Is(0)) => Wanted::Beyond,
        (Number::None, Number::Is(_)) if size == 0 => Wanted::Beyond,
        (Number::None, Number::Is(count)) => Wanted::Part(size.saturating_sub(count)..size),
        _ => Wanted::Whole,
    }
}

enum Number {
    None,
    Is(usize),
    Wrong,
}

/// Digits alone; one that is too large for us is larger than any file.
fn number(text: &str) -> Number {
    match text.trim() {
        "" => Number::None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Number::Is(digits.parse().unwrap_or(usize::MAX))
        }
        _ => Number::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_the_rfc_has_them() {
        for (text, wanted) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=5-", Wanted::Part(5..10)),
            ("Bytes = 5-".trim(), Wanted::Whole),
            ("BYTES=5-", Wanted::Part(5..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=4-99", Wanted::Part(4..10)),
            ("bytes=4-99999999999999999999999", Wanted::Part(4..10)),
            ("bytes=99999999999999999999999-", Wanted::Beyond),
            ("bytes=10-", Wanted::Beyond),
            ("bytes=10-12", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
        ] {
            assert_eq!(range_of(text, 10), wanted, "{text}");
        }
        for whole in [
            "bytes=5-4",
            "bytes=12-11",
            "bytes=0-1,4-5",
            "lines=1-2",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=-",
            "bytes",
            "",
        ] {
            assert_eq!(range_of(whole, 10), Wanted::Whole, "{whole}");
        }
        assert_eq!(range_of("bytes=-5", 0), Wanted::Beyond);
        assert_eq!(range_of("bytes=0-", 0), Wanted::Beyond);
    }

    fn ask(method: Method, headers: &[(&'static str, &'static str)]) -> Wanted {
        let pairs = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        wanted(&method, &pairs.collect(), "\"abc\"", 10)
    }

    #[test]
    fn who_has_this_version_gets_nothing() {
        for tags in [
            "\"abc\"",
            "W/\"abc\"",
            "*",
            "\"x\", \"abc\"",
            "\"x\",W/\"abc\" ",
        ] {
            assert_eq!(
                ask(Method::GET, &[("if-none-match", tags)]),
                Wanted::Nothing
            );
        }
        for tags in ["\"abcd\"", "abc", "", "w/\"abc\""] {
            assert_eq!(ask(Method::GET, &[("if-none-match", tags)]), Wanted::Whole);
        }
    }

    #[test]
    fn a_range_of_another_version_gets_the_whole() {
        let range = ("range", "bytes=2-3");
        assert_eq!(ask(Method::GET, &[range]), Wanted::Part(2..4));
        assert_eq!(ask(Method::HEAD, &[range]), Wanted::Whole);
        for (tag, wanted) in [
            ("\"abc\"", Wanted::Part(2..4)),
            ("W/\"abc\"", Wanted::Whole),
            ("\"old\"", Wanted::Whole),
            ("Sat, 21 Nov 2026 19:00:00 GMT", Wanted::Whole),
        ] {
            assert_eq!(
                ask(Method::GET, &[range, ("if-range", tag)]),
                wanted,
                "{tag}"
            );
        }
    }
}
