//! Addresses that come back.

use super::*;

#[test]
fn a_reserved_address_that_somebody_still_holds_is_not_given_twice() {
    let mut leases = LeaseTable::default();
    leases.apply(&LeaseChange::Bind {
        mac: mac(20),
        address: ip(11),
        expires: Timestamp::from_second(100).unwrap(),
        port: None,
    });
    let discover = request(Kind::Discover, 1, &[]);
    assert_eq!(
        ask_at(&leases, &discover, 50).because,
        Because::ReservedInUse {
            address: ip(11),
            holder: mac(20),
            left: jiff::SignedDuration::from_secs(50),
        }
    );
    let words = |second| ask_at(&leases, &discover, second).because.to_string();
    assert!(words(50).contains("for another 1 min;"), "{}", words(50));
    assert!(
        words(-100).contains("for another 4 min;"),
        "{}",
        words(-100)
    );
    assert!(ask_at(&leases, &discover, 101).reply.is_some());
}

#[test]
fn release_and_decline_are_believed_of_the_senders_own_address_alone() {
    let mut leases = LeaseTable::default();
    leases.apply(&LeaseChange::Bind {
        mac: mac(9),
        address: ip(100),
        expires: Timestamp::from_second(100).unwrap(),
        port: None,
    });
    let foreign = request(Kind::Decline, 8, &[(50, &[10, 77, 0, 100])]);
    assert!(ask_at(&leases, &foreign, 1).lease_change.is_none());
    let own = request(Kind::Decline, 9, &[(50, &[10, 77, 0, 100])]);
    assert!(ask_at(&leases, &own, 1).lease_change.is_some());
    let mut release = request(Kind::Release, 8, &[]);
    release.ciaddr = ip(100);
    let told = |release: &Request| {
        let verdict = ask_at(&leases, release, 1);
        (
            verdict.lease_change.is_some(),
            verdict.events[0].message.clone(),
        )
    };
    let (believed, words) = told(&release);
    assert_eq!(
        (believed, &*words),
        (false, "releases 10.77.0.100, which it does not have")
    );
    release.mac = mac(9);
    let (believed, words) = told(&release);
    assert_eq!((believed, &*words), (true, "gave its address back"));
    release.options.insert(54, vec![10, 77, 0, 99]);
    let (believed, words) = told(&release);
    assert!(
        !believed && words.contains("it took the offer of another DHCP server, 10.77.0.99"),
        "{words}"
    );
}

#[test]
fn a_machine_that_declines_whatever_it_gets_is_told_of_and_keeps_the_last() {
    let mut leases = LeaseTable::default();
    let held = |leases: &mut LeaseTable| {
        let offer = ask_at(leases, &request(Kind::Discover, 9, &[]), 1);
        let address = reply(&offer).yiaddr;
        let wants = request(Kind::Request, 9, &[(50, &address.octets())]);
        leases.apply(&ask_at(leases, &wants, 1).lease_change.unwrap());
        address
    };
    let decline = |leases: &LeaseTable, address: Ipv4Addr| {
        ask_at(
            leases,
            &request(Kind::Decline, 9, &[(50, &address.octets())]),
            1,
        )
    };
    let first = held(&mut leases);
    leases.apply(&decline(&leases, first).lease_change.expect("believed"));
    let last = held(&mut leases);
    assert_ne!(first, last);
    let verdict = decline(&leases, last);
    assert_eq!(verdict.because, Because::HalfRests(last));
    assert!(verdict.lease_change.is_none());
    assert!(verdict.events[0].message.contains("half of the pool"));
    assert_eq!(held(&mut leases), last);
}
