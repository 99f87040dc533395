//! `GET /files/…`: kernels, initrds and loaders, with ranges and entity tags (RFC 9110).

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE,
    RANGE,
};
use axum::http::{HeaderMap, Method, Response, StatusCode};

use super::body::Served;
use super::{App, Ends};
use crate::assets::{Asset, stage_of};
use crate::policy::event::StageState;
use crate::site::Site;

pub(super) async fn file(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response<Body> {
    let Some(asset) = app.site.snapshot().assets.get(&path).cloned() else {
        if let Ends::Network { peer, .. } = ends {
            app.site.note(
                peer,
                stage_of(&path),
                StageState::Ignored,
                format!("asked for /files/{path}, which is not served"),
            );
        }
        return empty(StatusCode::NOT_FOUND);
    };
    respond(&app.site, ends, &path, &asset, &method, &headers)
}

fn respond(
    site: &Arc<Site>,
    ends: Ends,
    path: &str,
    asset: &Asset,
    method: &Method,
    headers: &HeaderMap,
) -> Response<Body> {
    let etag = format!("\"{}\"", asset.sha256);
    if headers
        .get(IF_NONE_MATCH)
        .is_some_and(|tag| tag.as_bytes() == etag.as_bytes())
    {
        return empty(StatusCode::NOT_MODIFIED);
    }
    let size = asset.bytes.len();
    // A range of another version than the client holds would mix two files.
    let same = headers
        .get(IF_RANGE)
        .is_none_or(|tag| tag.as_bytes() == etag.as_bytes());
    let wanted = headers
        .get(RANGE)
        .filter(|_| same)
        .and_then(|range| range.to_str().ok());
    let (status, range) = match wanted.map(|text| parse_range(text, size)) {
        None | Some(Asked::Whole) => (StatusCode::OK, 0..size),
        Some(Asked::Part(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Asked::Beyond) => {
            let mut response = empty(StatusCode::RANGE_NOT_SATISFIABLE);
            put(&mut response, CONTENT_RANGE, format!("bytes */{size}"));
            return response;
        }
    };
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        counted(site, ends, path, asset, range.clone())
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    put(&mut response, CONTENT_LENGTH, range.len().to_string());
    put(&mut response, CONTENT_TYPE, content_type(path).into());
    put(&mut response, ACCEPT_RANGES, "bytes".into());
    put(&mut response, ETAG, etag);
    if status == StatusCode::PARTIAL_CONTENT {
        put(
            &mut response,
            CONTENT_RANGE,
            format!("bytes {}-{}/{size}", range.start, range.end - 1),
        );
    }
    response
}

/// UEFI HTTP boot asks by HEAD what a file is: the type counts, and the name only where there is none
/// (EDK2 `HttpBootCheckImageType`; UEFI 2.10 §24.7 has the type).
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "efi")) => "application/efi",
        _ => "application/octet-stream",
    }
}

fn put(response: &mut Response<Body>, name: axum::http::HeaderName, value: String) {
    // Digits, hexadecimal and fixed words: always a valid header value.
    if let Ok(value) = value.try_into() {
        response.headers_mut().insert(name, value);
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The bytes, and an event when they are out or the client has gone.
fn counted(site: &Arc<Site>, ends: Ends, path: &str, asset: &Asset, range: Range<usize>) -> Body {
    let (site, path) = (site.clone(), path.to_owned());
    let (total, whole) = (range.len(), asset.bytes.len());
    let last = range.end == whole;
    let began = Instant::now();
    let done = move |sent: usize| {
        let Ends::Network { peer, .. } = ends else {
            return;
        };
        let took = began.elapsed();
        if sent < total {
            let message = format!(
                "{path} by HTTP was cut off after {sent} of {total} bytes, {:.1} s",
                took.as_secs_f64()
            );
            site.note(peer, stage_of(&path), StageState::Retry, message);
        } else if last {
            let message = format!(
                "{path} by HTTP, {whole} bytes in {:.1} s",
                took.as_secs_f64()
            );
            site.note(peer, stage_of(&path), StageState::Ok, message);
        }
    };
    Body::new(Served::new(asset.bytes.slice(range), done))
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part(Range<usize>),
    Beyond,
}

/// One range of bytes (RFC 9110 §14.1.2); several at once, or nonsense, get the whole file,
/// as the RFC allows.
fn parse_range(text: &str, size: usize) -> Asked {
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .and_then(|spec| spec.split_once('-'))
    else {
        return Asked::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), _) if first >= size => Asked::Beyond,
        (Ok(first), Ok(last)) if last >= first => {
            Asked::Part(first..size.min(last.saturating_add(1)))
        }
        (Ok(first), Err(_)) if last.is_empty() => Asked::Part(first..size),
        (Err(_), Ok(0)) if first.is_empty() => Asked::Beyond,
        (Err(_), Ok(count)) if first.is_empty() && size > 0 => {
            Asked::Part(size.saturating_sub(count)..size)
        }
        _ => Asked::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_learns_what_a_loader_is() {
        assert_eq!(content_type("loaders/snponly.efi"), "application/efi");
        for other in ["loaders/undionly.kpxe", "kernels/debian/vmlinuz", "efi"] {
            assert_eq!(content_type(other), "application/octet-stream");
        }
    }

    #[test]
    fn ranges_as_the_rfc_has_them() {
        assert_eq!(parse_range("bytes=0-0", 10), Asked::Part(0..1));
        assert_eq!(parse_range("bytes=5-", 10), Asked::Part(5..10));
        assert_eq!(parse_range("bytes=-3", 10), Asked::Part(7..10));
        assert_eq!(parse_range("bytes=-30", 10), Asked::Part(0..10));
        assert_eq!(parse_range("bytes=4-99", 10), Asked::Part(4..10));
        assert_eq!(parse_range("bytes=10-", 10), Asked::Beyond);
        assert_eq!(parse_range("bytes=-0", 10), Asked::Beyond);
        for whole in [
            "bytes=5-4",
            "bytes=0-1,4-5",
            "lines=1-2",
            "bytes=a-b",
            "bytes=-",
        ] {
            assert_eq!(parse_range(whole, 10), Asked::Whole, "{whole}");
        }
    }
}
