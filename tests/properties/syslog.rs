//! Syslog datagrams: any bytes are one short line that no terminal obeys, or nothing.

use bridgehead::policy::hint::hints;
use bridgehead::wire::syslog::Message;

/// Holds for every datagram.
pub(crate) fn check(bytes: &[u8]) {
    let Some(message) = Message::parse(bytes) else {
        return;
    };
    assert!(message.severity <= 7);
    assert!(!message.text.is_empty() && message.text.chars().count() <= 500);
    assert!(message.tag.chars().count() <= 32);
    let line = message.to_string();
    assert!(!line.chars().any(char::is_control), "{line:?}");
    // What is kept is one line of a file, and read again as it was.
    assert_eq!(line.lines().count(), 1, "{line:?}");
    for hint in hints(&line) {
        assert!(hint.line.chars().count() <= 200);
    }
    // As somebody would who passes it on.
    let again = format!(
        "<{}>1 - - {} - - - {}",
        message.severity,
        tag(&message.tag),
        message.text
    );
    let again = Message::parse(again.as_bytes()).expect("it says something");
    assert_eq!(again.text, message.text);
}

fn tag(tag: &str) -> &str {
    match tag.is_empty() || tag.contains(' ') {
        true => "-",
        false => tag,
    }
}
