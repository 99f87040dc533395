//! The daemon's log: lines on stderr, or where that is the journal, messages with fields.

use std::env;
use std::error::Error;
use std::fmt::{self, Debug};
use std::io;

use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{DefaultFields, DefaultVisitor, Writer};
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use crate::timeline::{FIELDS, TARGET};

/// Begins it; `RUST_LOG=bridgehead=debug` shows more. What the NFS crate says of its peers' packets is told by events of
/// ours already.
pub fn start(colour: bool) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,nfs3_server=off"));
    let journal = is_journal();
    if journal && let Ok(layer) = tracing_journald::layer() {
        let layer = layer
            .with_field_prefix(Some("BRIDGEHEAD".to_owned()))
            .with_syslog_identifier("bridgehead".to_owned())
            .with_priority_mappings(priorities());
        return tracing_subscriber::registry()
            .with(filter)
            .with(layer)
            .init();
    }
    // The journal stamps its own times.
    let lines = lines(colour, !journal, io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
}

/// Messages as lines, boot events without the fields that they have in words.
fn lines<S, W>(colour: bool, timed: bool, to: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Clone + Send + Sync + 'static,
{
    let told = as_lines(Plain, colour, timed, to.clone());
    let others = as_lines(DefaultFields::new(), colour, timed, to);
    let told = told.with_filter(filter_fn(|about| about.target() == TARGET));
    told.and_then(others.with_filter(filter_fn(|about| about.target() != TARGET)))
}

fn as_lines<S, F, W>(fields: F, colour: bool, timed: bool, to: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: for<'a> FormatFields<'a> + Send + Sync + 'static,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(to)
        .with_target(false)
        .with_ansi(colour)
        .fmt_fields(fields);
    match timed {
        true => lines.boxed(),
        false => lines.without_time().boxed(),
    }
}

/// As syslog(3) means them; the crate's own have `info` as a notice.
fn priorities() -> PriorityMappings {
    PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        ..PriorityMappings::new()
    }
}

/// What a line on stderr begins with so that the journal has it as an error (sd-daemon(3)); nothing elsewhere.
pub fn error_prefix() -> &'static str {
    if is_journal() { "<3>" } else { "" }
}

/// Whether stderr goes to the journal (systemd.exec(5), `JOURNAL_STREAM`): a service's environment is handed on to
/// programs whose output goes elsewhere.
fn is_journal() -> bool {
    let stderr = nix::sys::stat::fstat(io::stderr());
    let stream = env::var("JOURNAL_STREAM").ok();
    stderr
        .ok()
        .zip(stream)
        .is_some_and(|(stderr, stream)| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// Fields as usual, without those that the line has in words.
#[derive(Debug)]
struct Plain;

impl<'w> FormatFields<'w> for Plain {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Others(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct Others<'a>(DefaultVisitor<'a>);

impl Others<'_> {
    fn is_said(field: &Field) -> bool {
        FIELDS.contains(&field.name())
    }
}

impl Visit for Others<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if !Self::is_said(field) {
            self.0.record_debug(field, value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if !Self::is_said(field) {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.0.record_error(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::fs::File;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_line_has_the_fields_that_it_does_not_say_in_words() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let file = Arc::new(File::create(&path).unwrap());
        let log = tracing_subscriber::registry().with(lines(false, false, file));
        tracing::subscriber::with_default(log, || {
            tracing::info!(target: TARGET, host = "kvm02", state = "ok", "kvm02 loader: asks");
            tracing::warn!(target: "rustls::conn", host = "10.77.0.9", state = 3, "handshake");
        });
        let lines = fs::read_to_string(&path).unwrap();
        insta::assert_snapshot!(lines, @r#"
         INFO kvm02 loader: asks
         WARN handshake host="10.77.0.9" state=3
        "#);
    }
}
