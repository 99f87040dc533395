//! The daemon's log where systemd keeps it: messages with fields, by the journal's own protocol.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::datagrams::{Datagrams, Deaf};
use crate::host_files::Booting;
use crate::lab::{Daemon, Lab, io_error};
use crate::{ok, site_by};

const PATIENCE: Duration = Duration::from_secs(120);

/// A /run of its own with the journal's socket at its place, and stderr as systemd would have it.
const UNDER: &str = r#"mount -t tmpfs none /run && mkdir -p /run/systemd/journal &&
    mount --bind "$1" /run/systemd/journal && JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && export JOURNAL_STREAM &&
    shift && exec "$@""#;

type Message = BTreeMap<String, String>;

/// One message: `NAME=VALUE`, or the name in a line, the value's length as eight bytes, little endian, and the value.
fn message(mut bytes: &[u8]) -> Option<Message> {
    let mut fields = Message::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| matches!(byte, b'=' | b'\n'))?;
        let (name, rest) = (&bytes[..end], &bytes[end + 1..]);
        let (value, rest) = match bytes[end] {
            b'=' => rest.split_at(rest.iter().position(|byte| *byte == b'\n')?),
            _ => {
                let (length, rest) = rest.split_first_chunk()?;
                rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?
            }
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.insert(text(name), text(value));
        bytes = rest.strip_prefix(b"\n")?;
    }
    Some(fields)
}

struct Journal {
    datagrams: Datagrams,
    heard: Vec<Message>,
}

impl Journal {
    fn at(directory: &Path) -> Self {
        ok(fs::create_dir_all(directory).map_err(io_error("create", directory)));
        Self {
            datagrams: Deaf::at(&directory.join("socket")).hear(),
            heard: Vec::new(),
        }
    }

    fn wait(&mut self, words: &str) -> Message {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let Some(datagram) = self.datagrams.next(PATIENCE) else {
                break;
            };
            let told = message(&datagram).unwrap_or_else(|| {
                let text = String::from_utf8_lossy(&datagram);
                panic!("no message of the journal: {text:?}")
            });
            self.heard.push(told.clone());
            if told.get("MESSAGE").is_some_and(|text| text.contains(words)) {
                return told;
            }
        }
        panic!("`{words}` was not logged, but: {:#?}", self.heard);
    }
}

fn under_the_journal(lab: &Lab) -> Vec<String> {
    let directory = lab.dir().join("journal").display().to_string();
    ["sh", "-c", UNDER, "sh", &directory]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn what_happens_to_a_host_is_in_the_journal_with_its_name_and_its_boot() {
    let Some((site, mut journal)) = site_by("journal", |lab| {
        let journal = Journal::at(&lab.dir().join("journal"));
        (journal, under_the_journal(lab))
    }) else {
        return;
    };
    let ready = journal.wait("bridgehead: ready");
    assert_eq!(ready["PRIORITY"], "6", "{ready:?}");
    assert_eq!(ready["SYSLOG_IDENTIFIER"], "bridgehead", "{ready:?}");
    assert!(!ready.contains_key("BRIDGEHEAD_HOST"), "{ready:?}");

    let host = Booting::new(&site, "kvm02", "52:54:00:00:00:02", "10.77.0.12");
    let token = host.config(&host.boot_token())("report_token");
    let failed = "stage=root\nstate=fail\nmessage=no answer\nnext=reboots\nuptime_ms=9000\n";
    let path = "/v1/boot/kvm02/events";
    assert_eq!(host.get(path, &token, &["--data-binary", failed]), "200");
    let told = journal.wait("kvm02 root fail: no answer");
    let attempt = ok(site.daemon.verb("status", &["kvm02", "--json"])).stdout;
    let attempt: serde_json::Value = serde_json::from_slice(&attempt).unwrap_or_default();
    let attempt = attempt["hosts"][0]["attempt"].as_str().unwrap_or("none");
    for (field, value) in [
        ("PRIORITY", "4"),
        ("BRIDGEHEAD_HOST", "kvm02"),
        ("BRIDGEHEAD_ATTEMPT", attempt),
        ("BRIDGEHEAD_STAGE", "root"),
        ("BRIDGEHEAD_STATE", "fail"),
    ] {
        assert_eq!(told.get(field).map(String::as_str), Some(value), "{told:?}");
    }
    // All of one boot is found by its attempt, its beginning too.
    let of_it = journal.heard.iter().filter(|told| {
        let found = |field: &str| told.get(field).map(String::as_str);
        found("BRIDGEHEAD_ATTEMPT") == Some(attempt) && found("BRIDGEHEAD_HOST") == Some("kvm02")
    });
    assert!(of_it.count() > 2, "{:#?}", journal.heard);
    assert!(
        site.daemon.log().text().is_empty(),
        "{}",
        site.daemon.log().text()
    );
}

#[test]
fn without_the_journals_socket_the_log_is_on_stderr_and_a_journal_of_others_is_none() {
    // `$1` is the directory without a socket.
    let Some((mut site, ())) = site_by("journalless", |lab| {
        let directory = lab.dir().join("journal");
        ok(fs::create_dir_all(&directory).map_err(io_error("create", &directory)));
        ((), under_the_journal(lab))
    }) else {
        return;
    };
    let line = ok(site.daemon.wait_for("bridgehead: ready", PATIENCE));
    assert!(line.trim_start().starts_with("INFO"), "{line}");
    // Why one does not start is an error there.
    let by = under_the_journal(&site.lab);
    let by: Vec<_> = by.iter().map(String::as_str).collect();
    let log = site.logs.join("refused.log");
    let mut second = ok(Daemon::spawn_by(
        &site.lab,
        &site.inventory,
        &site.data,
        &log,
        &by,
    ));
    let line = ok(second
        .log()
        .wait_for("another bridgehead (process ", PATIENCE));
    assert!(line.starts_with("<3>bridgehead: "), "{line}");
    ok(second.wait_exit(PATIENCE));
    drop(site);
    let inherited = ["env", "JOURNAL_STREAM=9:99"].map(str::to_owned).to_vec();
    let Some((mut site, ())) = site_by("journalled", |_| ((), inherited)) else {
        return;
    };
    let line = ok(site.daemon.wait_for("bridgehead: ready", PATIENCE));
    assert!(
        line.starts_with("20") && line.contains("Z  INFO "),
        "{line}"
    );
    // The fields are in the line in words, and not once more.
    let host = Booting::new(&site, "kvm02", "52:54:00:00:00:02", "10.77.0.12");
    host.boot_token();
    let line = ok(site.daemon.wait_for("kvm02 script: ", PATIENCE));
    assert!(
        !line.contains("host=") && !line.contains("attempt="),
        "{line}"
    );
}
