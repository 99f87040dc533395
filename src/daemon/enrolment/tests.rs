use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, duplex, split};

use super::*;
use crate::explain::testing;
use crate::policy::enrol::Evidence;
use crate::scribe::{Done, LeftOut, Scribe};

fn mac(last: u8) -> MacAddr {
    MacAddr([0x3c, 0xec, 0xef, 0, 0, last])
}

/// A site whose scribe leaves these out, an edit each.
fn site(dir: &tempfile::TempDir, edits: Vec<Vec<(u8, Kind)>>) -> Site {
    let (scribe, desk) = Scribe::new();
    let (ours, theirs) = duplex(1 << 17);
    let (from, to) = split(ours);
    let end = async { "it ended".to_owned() };
    tokio::spawn(desk.serve(to, from, end, CancellationToken::new()));
    tokio::spawn(async move {
        let mut pipe = BufReader::new(theirs);
        for left_out in edits {
            pipe.read_line(&mut String::new()).await.unwrap();
            let left_out = left_out.into_iter().map(|(last, kind)| LeftOut {
                mac: mac(last),
                refusal: Refusal {
                    kind,
                    words: "a test".into(),
                },
            });
            let done = Done {
                host: "kvm01".into(),
                file: "hosts.yaml".into(),
                rewritten: false,
                changes: String::new(),
                note: None,
                warnings: String::new(),
                left_out: left_out.collect(),
            };
            let reply = serde_json::json!({ "done": done }).to_string() + "\n";
            pipe.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    testing::site(dir.path()).written_by(scribe)
}

#[tokio::test]
async fn who_was_left_untried_is_looked_at_again_unless_nothing_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let busy = |last| (last, Kind::Busy);
    let edits = vec![vec![(1, Kind::Unfit), busy(2)], vec![busy(1), busy(2)]];
    let site = site(&dir, edits);
    let hosts = site.snapshot().inventory.hosts.clone();
    let named: Vec<_> = (1..)
        .zip(hosts.values())
        .map(|(last, host)| {
            let enrol = Enrol {
                host: host.clone(),
                replaces: None,
                because: Evidence::NextFree,
            };
            (mac(last), enrol)
        })
        .collect();
    enlist(&site, &named).await;
    assert_eq!(site.enrolment.next(9).await, [mac(2)]);
    assert!(site.enrolment.said(mac(1)).unwrap().contains("a test"));
    assert_eq!(site.enrolment.said(mac(2)), None);
    enlist(&site, &named).await;
    site.enrolment.consider(mac(3));
    assert_eq!(site.enrolment.next(9).await, [mac(3)]);
}
