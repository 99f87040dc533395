//! Syslog datagrams (RFC 5426) as they really come: iPXE's, the BSD kind of RFC 3164, RFC 5424, and anything else.

use std::fmt;

use super::text::clean;

/// Longer text is cut, characters; iPXE's lines have at most 128.
const MAX_TEXT: usize = 500;
/// RFC 3164 §4.1.3 allows 32.
const MAX_TAG: usize = 32;
/// The priority of what says none (RFC 3164 §4.3.3): user, notice.
const NO_PRIORITY: u8 = 13;

/// One line that somebody said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// 0 emergency to 7 debug (RFC 5424 table 2).
    pub severity: u8,
    /// The program, such as `ipxe` or `kernel`; may be empty.
    pub tag: String,
    /// What it says, in one line without control characters; never empty.
    pub text: String,
}

impl Message {
    /// Reads a datagram; `None` where it says nothing.
    ///
    /// Time and host name are left out: the clock of a machine that boots is wrong, and who sent it is its address.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(datagram);
        let (priority, rest) = priority(&text);
        let (tag, text) = match rest.strip_prefix("1 ") {
            Some(rest) => structured(rest).unwrap_or(("", rest)),
            None => bsd(rest),
        };
        let text = clean(text, MAX_TEXT).trim().to_owned();
        (!text.is_empty()).then(|| Self {
            severity: priority % 8,
            tag: clean(tag, MAX_TAG).trim().to_owned(),
            text,
        })
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.tag {
            "" => f.write_str(&self.text),
            tag => write!(f, "{tag}: {}", self.text),
        }
    }
}

/// The number in `<6>`, and what comes behind it. More than 191 is none (RFC 5424 §6.2.1).
fn priority(text: &str) -> (u8, &str) {
    let read = || {
        let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
        let digits = number.len() <= 3 && number.bytes().all(|b| b.is_ascii_digit());
        let number: u8 = digits.then(|| number.parse().ok()).flatten()?;
        (number <= 191).then_some((number, rest))
    };
    read().unwrap_or((NO_PRIORITY, text))
}

/// RFC 5424 behind its version: `TIME HOST APP PROCESS ID DATA MESSAGE`.
fn structured(rest: &str) -> Option<(&str, &str)> {
    let mut fields = rest.splitn(6, ' ');
    let app = fields.nth(2)?;
    let rest = fields.nth(2)?;
    let text = match rest.strip_prefix('-') {
        Some(text) => text,
        None => behind_data(rest)?,
    };
    // A byte order mark says that it is UTF-8.
    let text = text.trim_start_matches([' ', '\u{feff}']);
    Some((if app == "-" { "" } else { app }, text))
}

/// What comes behind `[id name="value" …][…]`, where `]` in a value is written `\]`.
fn behind_data(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(inside) = rest.strip_prefix('[') {
        let mut escaped = false;
        let end = inside.find(|c| {
            let ends = c == ']' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        rest = &inside[end + 1..];
    }
    (rest.len() < text.len()).then_some(rest)
}

/// RFC 3164 and what goes by its name: the time may be missing (iPXE), or be one of RFC 3339 (rsyslog); the host may
/// be missing (iPXE before it has a name, BusyBox).
fn bsd(rest: &str) -> (&str, &str) {
    let behind = behind_time(rest);
    let line = behind.unwrap_or(rest);
    if let Some(said) = tagged(line) {
        return said;
    }
    let (_host, after) = line.split_once(' ').unwrap_or(("", line));
    match tagged(after) {
        // Without a time, anything may be the first word of a sentence.
        Some((tag, text)) if behind.is_some() || tag == "ipxe" => (tag, text),
        _ => ("", line),
    }
}

/// `TAG: TEXT` or `TAG[123]: TEXT`.
fn tagged(line: &str) -> Option<(&str, &str)> {
    let (tag, text) = line.split_once(':')?;
    let tag = match tag.split_once('[') {
        Some((name, id)) if id.ends_with(']') => name,
        _ => tag,
    };
    let is_name = |c: char| c.is_ascii_graphic() && c != '[';
    // What has `://` behind its first word is no program.
    let fits = !tag.is_empty() && tag.len() <= MAX_TAG && tag.chars().all(is_name);
    let text = text.strip_prefix(' ').or(text.is_empty().then_some(text))?;
    fits.then_some((tag, text))
}

/// Behind `Nov  2 01:02:03 ` or `2026-11-02T01:02:03.5+00:00 `.
fn behind_time(text: &str) -> Option<&str> {
    const PATTERN: &[u8; 16] = b"Aaa d0 00:00:00 ";
    let bytes = text.as_bytes();
    let fits = |(byte, like): (&u8, &u8)| match like {
        b'A' => byte.is_ascii_uppercase(),
        b'a' => byte.is_ascii_lowercase(),
        b'd' => byte.is_ascii_digit() || *byte == b' ',
        b'0' => byte.is_ascii_digit(),
        exact => byte == exact,
    };
    if bytes.len() >= PATTERN.len() && bytes.iter().zip(PATTERN).all(fits) {
        return Some(&text[PATTERN.len()..]);
    }
    let (time, rest) = text.split_once(' ')?;
    time.parse::<jiff::Timestamp>().ok().map(|_| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(datagram: &[u8]) -> String {
        Message::parse(datagram).map_or(String::new(), |message| message.to_string())
    }

    #[test]
    fn what_is_really_sent_is_read() {
        for (datagram, words) in [
            // iPXE: before it has a name, with one, and with a domain.
            (&b"<6>ipxe: Configuring (net0 52:54:00:00:00:01)...... ok"[..], "ipxe: Configuring (net0 52:54:00:00:00:01)...... ok"),
            (b"<6>kvm02 ipxe: http://10.77.0.1/boot/52:54:00:00:00:02/script.ipxe... ok", "ipxe: http://10.77.0.1/boot/52:54:00:00:00:02/script.ipxe... ok"),
            (b"<6>kvm02 ipxe: ", ""),
            (b"<6>kvm01.lab.org ipxe: Connection timed out (https://ipxe.org/4c126035)", "ipxe: Connection timed out (https://ipxe.org/4c126035)"),
            // BusyBox: `logger` through `syslogd -R`.
            (b"<13>Nov 22 02:01:59 root: it is here\n", "root: it is here"),
            (b"<13>Nov  2 02:01:59 kvm01 root: it is here", "root: it is here"),
            // util-linux `logger --rfc3164` and its RFC 5424.
            (b"<13>Nov 22 02:01:59 kvm01 me[77]: it is here", "me: it is here"),
            (b"<13>1 2026-11-22T02:01:59.123456+00:00 kvm01 me - - [timeQuality tzKnown=\"1\" isSynced=\"0\"] it is here", "me: it is here"),
            // rsyslog forwards RFC 3164 with a precise time.
            (b"<6>2026-11-22T02:01:59.123456+00:00 kvm01 kernel: [    1.0] nfs: server 10.77.0.1 not responding", "kernel: [    1.0] nfs: server 10.77.0.1 not responding"),
            (b"<165>1 2003-10-11T22:14:15.003Z mine.example.com evntslog - ID47 [a b=\"\\]\"][c] \xef\xbb\xbfAn entry", "evntslog: An entry"),
            (b"<34>1 - - - - - -", ""),
            (b"<34>1 - - su - - - x", "su: x"),
        ] {
            assert_eq!(said(datagram), words, "{}", String::from_utf8_lossy(datagram));
        }
        assert_eq!(Message::parse(b"<34>x").unwrap().severity, 2);
    }

    #[test]
    fn what_fits_no_rule_is_kept_as_it_is() {
        for (datagram, words) in [
            (&b"just words"[..], "just words"),
            (b"<999>x", "<999>x"),
            (b"<6>", ""),
            (b"", ""),
            (b"<6>Connection timed: out", "Connection timed: out"),
            (b"<6>http://10.77.0.1/x", "http://10.77.0.1/x"),
            (b"<6>1 2 3", "2 3"),
            (b"<6>1 a b c d e [open", "a b c d e [open"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(
                said(datagram),
                words,
                "{}",
                String::from_utf8_lossy(datagram)
            );
        }
    }

    #[test]
    fn nothing_of_it_reaches_a_terminal_as_a_command() {
        let message =
            Message::parse(b"<6>ipxe: \x1b[2J\x1b[1;31mred\x1b[0m \x07\xc2\x9b31m\tend\nmore")
                .unwrap();
        assert_eq!(message.text, "red  end more");
        let long = format!("<6>ipxe: {}", "x".repeat(9000));
        assert_eq!(
            Message::parse(long.as_bytes()).unwrap().text.len(),
            MAX_TEXT
        );
        assert_eq!(said("<6>ipxe: a\u{202e}b".as_bytes()), "ipxe: ab");
    }
}
