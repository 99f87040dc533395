mod several;

use std::fs;
use std::io::Cursor;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex, split};
use tokio_util::sync::CancellationToken;

use super::desk::Patience;
use super::*;

const INVENTORY: &str = "# the lab
networks: {boot: {subnet: 10.77.0.0/24, pool: 10.77.0.100-10.77.0.199}}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: \"/roots/kvm\"}}}
hosts:
  kvm01: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm}   # the first
  'kvm[02-03]': {macs: [\"52:54:00:00:00:02\", \"52:54:00:00:00:03\"], ip: 10.77.0.12, profile: kvm}
";

fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

fn new_host(name: &str, last: u8) -> Edit {
    Edit::Add(NewHost {
        name: name.into(),
        mac: mac(last),
        profile: "kvm".into(),
        ip: None,
        rack: Some("r1, unit: 7".into()),
        unit: Some(9),
        network: Some("boot".into()),
        taken: vec![[10, 77, 0, 14].into()],
    })
}

fn set_mac(host: &str, last: u8, replacing: Option<u8>) -> Edit {
    Edit::SetMac(naming(host, last, replacing))
}

fn naming(host: &str, last: u8, replacing: Option<u8>) -> Naming {
    Naming {
        host: host.into(),
        mac: mac(last),
        replacing: replacing.map(mac),
    }
}

/// What the scribe answers to each, and the file then.
fn asked(edits: Vec<Edit>, dry_run: bool) -> (Vec<Reply>, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hosts.yaml");
    fs::write(&file, INVENTORY).unwrap();
    let lines = edits.into_iter().map(|edit| {
        let request = Request { edit, dry_run };
        serde_json::to_string(&request).unwrap() + "\n"
    });
    let mut output = Vec::new();
    work(&file, Cursor::new(lines.collect::<String>()), &mut output).unwrap();
    let replies = output.split(|byte| *byte == b'\n');
    let replies = replies.filter(|line| !line.is_empty());
    let replies = replies.map(|line| serde_json::from_slice(line).unwrap());
    (replies.collect(), fs::read_to_string(file).unwrap())
}

fn done(reply: &Reply) -> &Done {
    match reply {
        Reply::Done(done) => done,
        Reply::Refused(refusal) => panic!("{refusal:?}"),
    }
}

fn refused(reply: &Reply) -> (Kind, &str) {
    match reply {
        Reply::Refused(refusal) => (refusal.kind, &refusal.words),
        Reply::Done(done) => panic!("{done:?}"),
    }
}

#[test]
fn a_host_is_added_with_a_free_address_and_the_rest_stays_as_it_was() {
    let (replies, file) = asked(vec![new_host("kvm07", 7), new_host("kvm07", 8)], false);
    let added = done(&replies[0]);
    let note = "10.77.0.15 is the next free address of network boot, outside its pool 10.77.0.100-10.77.0.199";
    assert_eq!(added.note.as_deref(), Some(note));
    assert!(
        added.rewritten && added.changes.contains("kvm07"),
        "{added:?}"
    );
    let line = "  kvm07: {mac: \"52:54:00:00:00:07\", ip: 10.77.0.15, profile: kvm, rack: \"r1, unit: 7\", unit: 9}\n";
    assert_eq!(file, INVENTORY.to_owned() + line);
    let (kind, words) = refused(&replies[1]);
    assert!(
        kind == Kind::Unfit && words.contains("kvm07 is there already"),
        "{words}"
    );
}

#[test]
fn trying_writes_nothing() {
    let (replies, file) = asked(vec![new_host("kvm07", 7)], true);
    assert!(done(&replies[0]).rewritten);
    assert_eq!(file, INVENTORY);
}

#[test]
fn a_mac_is_replaced_if_the_host_has_the_one_that_is_meant() {
    let edits = vec![
        set_mac("kvm01", 9, None),
        set_mac("kvm01", 9, Some(8)),
        set_mac("kvm01", 2, Some(1)),
        set_mac("kvm01", 9, Some(1)),
        set_mac("kvm77", 7, None),
    ];
    let (replies, file) = asked(edits, false);
    for (reply, expected) in [
        (
            &replies[0],
            "kvm01 has another MAC by now: 52:54:00:00:00:01",
        ),
        (
            &replies[1],
            "kvm01 has another MAC by now: 52:54:00:00:00:01",
        ),
        (&replies[2], "52:54:00:00:00:02 is kvm02 already"),
        (&replies[4], "no host kvm77"),
    ] {
        let (kind, words) = refused(reply);
        assert!(kind == Kind::Unfit && words.contains(expected), "{words}");
    }
    assert!(done(&replies[3]).rewritten);
    assert_eq!(file, INVENTORY.replace("00:00:01\"", "00:00:09\""));
}

#[test]
fn what_would_break_the_inventory_is_refused_with_its_place() {
    let strange = |name: &str| new_host(name, 7);
    let edits = vec![
        strange("kvm07: {}\nhosts"),
        strange("kvm[07-99]"),
        strange("-"),
        strange("\"kvm07\""),
    ];
    let (replies, file) = asked(edits, false);
    for reply in &replies {
        let (kind, words) = refused(reply);
        assert!(matches!(kind, Kind::Unfit | Kind::Faulty), "{words}");
    }
    let mut unknown = new_host("kvm07", 7);
    if let Edit::Add(host) = &mut unknown {
        host.profile = "kwm".into();
    }
    let (replies, same) = asked(vec![unknown], false);
    let (kind, words) = refused(&replies[0]);
    assert!(
        kind == Kind::Faulty && words.contains("hosts.yaml:7"),
        "{words}"
    );
    assert_eq!((&*file, &*same), (INVENTORY, INVENTORY));
}

#[test]
fn a_daemon_that_says_something_else_is_left() {
    let file = Path::new("/nonexistent/hosts.yaml");
    let endless = vec![b' '; 2 * LONGEST];
    for said in [
        b"{}\n".to_vec(),
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"{".to_vec(),
        endless,
    ] {
        let mut output = Vec::new();
        assert!(work(file, Cursor::new(said), &mut output).is_err());
        assert_eq!(output, b"");
    }
    let request = Request {
        edit: set_mac("kvm01", 1, None),
        dry_run: false,
    };
    let line = serde_json::to_string(&request).unwrap() + "\n";
    let mut output = Vec::new();
    work(file, Cursor::new(line), &mut output).unwrap();
    let reply = serde_json::from_slice(&output).unwrap();
    let (kind, words) = refused(&reply);
    assert!(
        words.contains("/nonexistent") && words.contains("No such file"),
        "{kind:?}: {words}"
    );
}

/// A desk that is served, and the other end of its pipes.
fn served(shutdown: &CancellationToken) -> (Scribe, DuplexStream, tokio::task::JoinHandle<()>) {
    let (scribe, desk) = Scribe::new();
    let (ours, theirs) = duplex(LONGEST);
    let (from, to) = split(ours);
    let end = async { "signal: 9".to_owned() };
    let serving = tokio::spawn(desk.serve(to, from, end, shutdown.clone()));
    (scribe, theirs, serving)
}

async fn line(pipe: &mut BufReader<DuplexStream>) -> String {
    let mut line = String::new();
    pipe.read_line(&mut line).await.unwrap();
    line
}

async fn confirm(pipe: &mut BufReader<DuplexStream>) {
    let done = Done {
        host: "kvm01".into(),
        file: "hosts.yaml".into(),
        rewritten: true,
        changes: String::new(),
        note: None,
        warnings: String::new(),
        left_out: Vec::new(),
    };
    let reply = serde_json::to_string(&Reply::Done(done)).unwrap() + "\n";
    pipe.write_all(reply.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn edits_are_made_one_by_one_and_those_under_way_before_the_end() {
    let shutdown = CancellationToken::new();
    let (scribe, pipe, serving) = served(&shutdown);
    let mut pipe = BufReader::new(pipe);
    let ask = |last| {
        let scribe = scribe.clone();
        tokio::spawn(async move { scribe.edit(set_mac("kvm01", last, None), false).await })
    };
    let first = ask(1);
    assert!(line(&mut pipe).await.contains("52:54:00:00:00:01"));
    let second = ask(2);
    while scribe.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    confirm(&mut pipe).await;
    assert!(first.await.unwrap().is_ok());
    assert!(line(&mut pipe).await.contains("52:54:00:00:00:02"));
    confirm(&mut pipe).await;
    assert!(second.await.unwrap().is_ok());
    assert_eq!(line(&mut pipe).await, "", "its end");
    serving.await.unwrap();
    let late = ask(3).await.unwrap().unwrap_err();
    assert_eq!(
        (late.kind, &*late.words),
        (Kind::Gone, "nothing was changed: the daemon ends")
    );
}

#[tokio::test]
async fn a_scribe_that_dies_is_told_of_and_nobody_waits_for_it() {
    let shutdown = CancellationToken::new();
    let (scribe, pipe, serving) = served(&shutdown);
    let mut pipe = BufReader::new(pipe);
    let ask = scribe.edit(set_mac("kvm01", 1, None), false);
    let dies = async {
        line(&mut pipe).await;
        drop(pipe);
    };
    let (said, ()) = tokio::join!(ask, dies);
    let said = said.unwrap_err();
    assert!(
        said.kind == Kind::Gone && said.words.contains("perhaps written"),
        "{said}"
    );
    let said = scribe
        .edit(set_mac("kvm01", 1, None), false)
        .await
        .unwrap_err();
    assert!(
        said.words
            .starts_with("nothing was changed: the process that edits"),
        "{said}"
    );
    assert!(scribe.gone().unwrap().contains("signal: 9"));
    assert!(!serving.is_finished(), "the daemon goes on");
    shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_stuck_disk_keeps_nobody_for_ever_and_the_line_is_short() {
    let shutdown = CancellationToken::new();
    let (mut scribe, pipe, _serving) = served(&shutdown);
    let mut pipe = BufReader::new(pipe);
    let mut patient = scribe.clone();
    let patience = |time| Patience {
        line: time,
        edit: time,
    };
    scribe.patience = patience(Duration::from_millis(1));
    patient.patience = patience(Duration::from_secs(60));
    let ask = |last| {
        let scribe = scribe.clone();
        tokio::spawn(async move { scribe.edit(set_mac("kvm01", last, None), false).await })
    };
    let stuck = ask(1);
    line(&mut pipe).await;
    let waiting: Vec<_> = (0..40).map(ask).collect();
    let mut full = 0;
    for one in waiting {
        let said = one.await.unwrap().unwrap_err();
        assert_eq!(said.kind, Kind::Busy);
        assert!(said.words.starts_with("nothing was changed: "), "{said}");
        full += usize::from(said.words.contains("wait already"));
    }
    assert_eq!(full, 40 - 16);
    let said = stuck.await.unwrap().unwrap_err();
    assert!(said.words.contains("may be yet"), "{said}");
    confirm(&mut pipe).await;
    while scribe.waiting() > 0 {
        tokio::task::yield_now().await;
    }
    // Of those that waited nobody waits any more: none of them is done.
    let late = patient.edit(set_mac("kvm01", 77, None), false);
    let confirms = async {
        assert!(line(&mut pipe).await.contains("52:54:00:00:00:4d"));
        confirm(&mut pipe).await;
    };
    let (late, ()) = tokio::join!(late, confirms);
    assert!(late.is_ok());
}

/// Somebody who asks and goes away must not go unnamed.
#[tokio::test]
async fn what_became_of_an_edit_is_told_also_where_nobody_waits() {
    let shutdown = CancellationToken::new();
    let (scribe, pipe, _serving) = served(&shutdown);
    let mut pipe = BufReader::new(pipe);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let ask = |last| {
        let (scribe, tell) = (scribe.clone(), tell.clone());
        tokio::spawn(async move {
            let ended = move |outcome: &Outcome| {
                let _ = tell.send((last, outcome.as_ref().err().map(|why| why.kind)));
            };
            scribe
                .edit_then(set_mac("kvm01", last, None), false, ended)
                .await
        })
    };
    let first = ask(1);
    line(&mut pipe).await;
    let second = ask(2);
    while scribe.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    for one in [first, second] {
        one.abort();
        assert!(one.await.unwrap_err().is_cancelled());
    }
    confirm(&mut pipe).await;
    assert_eq!(told.recv().await, Some((1, None)));
    // The second was never asked for.
    let third = ask(3);
    assert!(line(&mut pipe).await.contains("52:54:00:00:00:03"));
    third.abort();
    drop(pipe);
    assert_eq!(told.recv().await, Some((3, Some(Kind::Gone))));
}
