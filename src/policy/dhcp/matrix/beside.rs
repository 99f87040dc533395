//! Beside another server: `dhcp: proxy`.

use super::*;

fn discover(who: u8, arch: u8) -> Packet {
    packet(Kind::Discover, who).at(BESIDE).firmware(arch)
}

#[test]
fn firmware_is_told_what_to_boot_and_given_no_address() {
    for (arch, file, vendor) in [
        (0, "undionly.kpxe", Some(&[6, 1, 8, 255][..])),
        (7, "snponly.efi", None),
    ] {
        let guid = [&[0][..], &[5; 16]].concat();
        let sent = discover(4, arch).option(97, &guid).sent();
        assert_eq!(sent.destination, Destination::Broadcast);
        let reply = sent.reply;
        assert_eq!((reply.message_type, reply.yiaddr), (Kind::Offer, ANY));
        assert_eq!(reply.boot_file, file);
        assert_eq!(reply.next_server, BESIDE);
        assert_eq!(reply.options[&60], b"PXEClient");
        assert_eq!(reply.options[&97], guid);
        assert_eq!(reply.options.get(&43).map(Vec::as_slice), vendor);
        for given in [1, 3, 6, 51] {
            assert!(!reply.options.contains_key(&given), "option {given}");
        }
    }
}

#[test]
fn http_boot_and_ipxe_get_urls() {
    let http = discover(4, 16).option(60, b"HTTPClient:Arch:00016");
    let reply = http.sent().reply;
    assert_eq!(reply.options[&60], b"HTTPClient");
    assert!(reply.boot_file.ends_with("/files/loaders/snponly.efi"));
    let ipxe = discover(4, 0).option(77, b"iPXE");
    let reply = ipxe.sent().reply;
    assert_eq!(
        reply.boot_file,
        "http://10.66.0.1/boot/52:54:00:00:00:04/script.ipxe"
    );
    assert_eq!(reply.options[&60], b"PXEClient");
    assert!(!reply.options.contains_key(&175) && !reply.options.contains_key(&43));
}

#[test]
fn by_a_relay_too() {
    let relayed = discover(4, 7).relayed(ip(66, 254));
    let sent = relayed.sent();
    assert_eq!(sent.destination, unicast(ip(66, 254), 67));
    let bytes = sent.reply.encode(&relayed.request);
    assert_eq!(bytes[10] & 0x80, 0x80);
}

#[test]
fn nobody_else_is_answered() {
    let system = packet(Kind::Discover, 4).at(BESIDE);
    assert_eq!(system.ask().because, Because::Proxied("beside".into()));
    let other = ip(66, 9);
    let request = packet(Kind::Request, 4).at(BESIDE).firmware(7);
    let request = request.option(54, &other.octets()).wants(ip(66, 14));
    assert_eq!(request.ask().because, Because::OtherServer(other));
    let release = packet(Kind::Release, 4)
        .at(BESIDE)
        .from(ip(66, 14), 68, BESIDE);
    let verdict = release.ask();
    assert!(verdict.reply.is_none() && verdict.lease_change.is_none());
}

#[test]
fn port_4011_names_the_file_again() {
    let mut asks = packet(Kind::Request, 4).at(BESIDE).firmware(7);
    asks = asks.from(ip(66, 200), 68, BESIDE);
    asks.port = Port::Pxe;
    let sent = asks.sent();
    assert_eq!(sent.destination, unicast(ip(66, 200), 68));
    assert_eq!(
        (sent.reply.message_type, sent.reply.yiaddr),
        (Kind::Ack, ANY)
    );
    assert_eq!(sent.reply.boot_file, "snponly.efi");
    assert_eq!(sent.reply.options[&54], BESIDE.octets());
    assert!(asks.ask().lease_change.is_none());
    // Without ciaddr it goes back to where it came from.
    asks.request.ciaddr = ANY;
    asks.source.set_port(2070);
    assert_eq!(asks.sent().destination, unicast(ip(66, 200), 2070));
}

#[test]
fn a_bios_rom_that_chose_a_boot_item_hears_of_it() {
    let mut asks = packet(Kind::Request, 1)
        .firmware(0)
        .from(ip(77, 11), 68, US);
    asks.port = Port::Pxe;
    let chosen = asks.option(43, &[71, 4, 0, 1, 0, 0, 255]);
    let reply = chosen.sent().reply;
    assert_eq!(reply.options[&43], [71, 4, 0, 1, 0, 0, 255]);
    assert_eq!(reply.boot_file, "undionly.kpxe");
}

#[test]
fn other_packets_to_port_4011_get_none() {
    let mut asks = packet(Kind::Discover, 4).at(BESIDE).firmware(7);
    asks.port = Port::Pxe;
    assert_eq!(asks.ask().because, Because::NotForPxe(Kind::Discover));
    let mut system = packet(Kind::Request, 4).at(BESIDE);
    system.port = Port::Pxe;
    assert_eq!(system.ask().because, Because::NotForPxe(Kind::Request));
}
