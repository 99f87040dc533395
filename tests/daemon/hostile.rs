//! What nobody should send: the daemon lives, answers nothing, and says what it saw.

use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use crate::clients::{Program, lease};
use crate::lab::{APPLIANCE, Namespace, Site, until};
use crate::{ok, site};

/// A DHCP message (RFC 2131 section 2) with the given hardware address length and options.
fn dhcp(hlen: u8, options: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 236];
    packet[..3].copy_from_slice(&[1, 1, hlen]);
    packet[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 0x66]);
    packet.extend([99, 130, 83, 99]);
    packet.extend(options);
    packet
}

/// Small, fast, and the same in every run (Marsaglia's xorshift).
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut x = seed;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// Each wrong in a way of its own.
fn dhcp_packets() -> Vec<Vec<u8>> {
    let whole = dhcp(6, &[53, 1, 1, 255]);
    vec![
        vec![],
        vec![1],
        whole[..100].to_vec(),
        whole[..239].to_vec(),
        whole[..240].to_vec(),
        dhcp(17, &[53, 1, 1, 255]),
        dhcp(255, &[53, 1, 1, 255]),
        dhcp(0, &[53, 1, 1, 255]),
        // Options that end early, overlap, or lie about their length.
        dhcp(6, &[53, 200, 1]),
        dhcp(6, &[53]),
        dhcp(6, &[52, 1, 3, 53, 1, 1, 255]),
        dhcp(6, &[93, 3, 0, 0, 7, 53, 1, 1, 255]),
        dhcp(6, &[12, 2, 0xff, 0xfe, 53, 1, 1, 255]),
        dhcp(6, &[82, 2, 1, 200, 53, 1, 1, 255]),
        dhcp(6, &[53, 1, 99, 255]),
        dhcp(6, &[&[53, 1, 1][..], &[0; 65_000]].concat()),
    ]
}

fn dhcp_noise() -> Vec<Vec<u8>> {
    let packets = (1..200).map(|seed: u32| noise(seed, seed as usize * 7 % 700));
    let options = (1..100).map(|seed: u32| dhcp(6, &noise(seed, seed as usize)));
    packets.chain(options).collect()
}

fn tftp_packets() -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = [
        &b""[..],
        b"\0",
        b"\0\x01",
        b"\0\x01no-terminator",
        b"\0\x01file\0",
        b"\0\x01file\0octet",
        b"\0\x01file\0octet\0blksize\0",
        b"\0\x01file\0octet\0blksize\x0099999999999999\0",
        b"\0\x01snponly.efi\0octet\0blksize\x000\0",
        b"\0\x01snponly.efi\0octet\0windowsize\x000\0",
        b"\0\x02snponly.efi\0octet\0",
        b"\0\x03\0\x01data",
        b"\0\x04\0\x01",
        b"\0\x05\0\0\0",
        b"\0\x09\0\0",
        b"\0\x01\xff\xfe\0octet\0",
    ]
    .iter()
    .map(|packet| packet.to_vec())
    .collect();
    packets.extend((1..200).map(|seed: u32| noise(seed, seed as usize * 5 % 600)));
    packets
}

/// Sends from the client's address; what the kernel has no buffer for is no loss.
fn send(port: u16, packets: &[Vec<u8>]) -> io::Result<()> {
    let socket = UdpSocket::bind(("10.77.0.66", 0))?;
    let mut packets = packets.iter();
    packets.try_for_each(|packet| socket.send_to(packet, (APPLIANCE, port)).map(|_| ()))
}

/// Sends noise by TCP. The daemon may hang up before it has read all.
fn shout(port: u16) -> io::Result<()> {
    for seed in 1..50 {
        let mut stream = TcpStream::connect((APPLIANCE, port))?;
        stream
            .write_all(&noise(seed, 3000))
            .or(Ok::<_, io::Error>(()))?;
    }
    // A record of 2 GiB, says its mark (RFC 5531 section 11).
    TcpStream::connect((APPLIANCE, port))?.write_all(&[0xff; 4])
}

fn attack() -> io::Result<()> {
    send(67, &dhcp_noise())?;
    send(4011, &dhcp_packets())?;
    send(4011, &dhcp_noise())?;
    send(69, &tftp_packets())?;
    shout(80)?;
    shout(2049)
}

/// A client's namespace with an address.
fn attacker(site: &Site) -> Namespace {
    let client = ok(site.lab.client("client", "52:54:00:00:00:66"));
    ok(client.ip(&["addr", "add", "10.77.0.66/24", "dev", "eth0"]));
    client
}

#[test]
fn malformed_dhcp_is_told_with_its_reason() {
    let Some(site) = site("malformed") else {
        return;
    };
    let client = attacker(&site);
    let sent = ok(client.enter(|| send(67, &dhcp_packets())));
    sent.unwrap_or_else(|error| panic!("send: {error}"));
    // What comes from nobody in particular is filed under `wire`.
    let told = || site.daemon.verb("log", &["wire"]);
    let probe = || {
        let text = String::from_utf8_lossy(&told()?.stdout).into_owned();
        let reasons = [
            "239 bytes are too short",
            "17 bytes is longer than",
            "option 53",
        ];
        Ok(reasons
            .iter()
            .all(|reason| text.contains(reason))
            .then_some(()))
    };
    let context = || {
        told().map_or(String::new(), |told| {
            String::from_utf8_lossy(&told.stdout).into_owned()
        })
    };
    ok(until(
        "the reasons",
        Duration::from_secs(10),
        probe,
        context,
    ));
}

#[test]
fn hostile_packets_leave_it_alive() {
    let Some(mut site) = site("hostile") else {
        return;
    };
    let client = attacker(&site);
    let log = site.daemon.log().clone();
    if let Err(error) = ok(client.enter(attack)) {
        panic!("the attack did not get through: {error}\n{}", log.tail(20));
    }
    ok(client.ip(&["addr", "flush", "dev", "eth0"]));
    ok(lease(Program::Udhcpc, &client, site.lab.dir(), None));
    ok(site.daemon.check_alive());
    assert!(!log.text().contains("panicked"), "{}", log.tail(40));
}
