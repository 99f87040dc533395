//! Answers go where the client hears them, and come from where it asked (RFC 2131 section 4.1): what no client
//! program can be told to do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::fake::INVENTORY;
use crate::lab::{APPLIANCE, Lab, Namespace, Site, io_error};
use crate::{fake, ok, site};

/// Port 68 of `eth0`, whether it has an address or not.
fn client_port(client: &Namespace, address: Ipv4Addr) -> UdpSocket {
    let bind = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.bind_device(Some(b"eth0"))?;
        socket.set_broadcast(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.bind(&SocketAddr::from((address, 68)).into())?;
        Ok::<UdpSocket, io::Error>(socket.into())
    };
    ok(ok(client.enter(bind)).map_err(io_error("bind", "UDP port 68".as_ref())))
}

/// A message (RFC 2131 section 2) of `kind` with these options behind option 53.
fn message(hardware: [u8; 2], chaddr: &[u8], kind: u8, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..4].copy_from_slice(&[1, hardware[0], hardware[1], 0]);
    bytes[4..8].copy_from_slice(&[kind, 1, 2, 3]);
    bytes[28..28 + chaddr.len()].copy_from_slice(chaddr);
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, kind]);
    bytes.extend(options);
    bytes.push(255);
    bytes
}

/// Sends, and gives the answer to it and its sender.
fn ask(socket: &UdpSocket, to: Ipv4Addr, question: &[u8]) -> (Vec<u8>, SocketAddr) {
    let sent = socket.send_to(question, (to, 67));
    sent.unwrap_or_else(|error| panic!("send: {error}"));
    let mut buffer = [0; 1500];
    loop {
        let received = socket.recv_from(&mut buffer);
        let (length, from) = received.unwrap_or_else(|error| panic!("receive: {error}"));
        if buffer[0] == 2 && buffer[4..8] == question[4..8] {
            return (buffer[..length].to_vec(), from);
        }
    }
}

fn yiaddr(reply: &[u8]) -> [u8; 4] {
    [reply[16], reply[17], reply[18], reply[19]]
}

fn option(reply: &[u8], code: u8) -> Option<Vec<u8>> {
    let mut rest = &reply[240..];
    while let [found, length, data @ ..] = rest {
        let (value, behind) = data.split_at_checked(usize::from(*length))?;
        if *found == code {
            return Some(value.to_vec());
        }
        rest = behind;
    }
    None
}

/// RFC 4390: type 32, no hardware address, an identifier. It hears broadcasts alone.
#[test]
fn a_client_without_a_mac_gets_its_lease_by_broadcast_and_keeps_it() {
    let Some(site) = site("nomac") else { return };
    let client = ok(site.lab.client("client", "52:54:00:00:05:01"));
    let socket = client_port(&client, Ipv4Addr::UNSPECIFIED);
    let lease = |identifier: &[u8]| {
        let named = [
            &[61, u8::try_from(identifier.len()).unwrap()][..],
            identifier,
        ]
        .concat();
        let discover = message([32, 0], &[], 1, &named);
        let (offer, _) = ask(&socket, Ipv4Addr::BROADCAST, &discover);
        let wanted = yiaddr(&offer);
        let server = option(&offer, 54).expect("a server id");
        let options = [&named, &[50, 4][..], &wanted, &[54, 4], &server].concat();
        let request = message([32, 0], &[], 3, &options);
        let (ack, _) = ask(&socket, Ipv4Addr::BROADCAST, &request);
        assert_eq!(option(&ack, 53), Some(vec![5]));
        assert_eq!((&ack[1..3], &ack[28..44]), (&[32, 0][..], &[0; 16][..]));
        assert_eq!(option(&ack, 61).as_deref(), Some(identifier));
        assert_eq!(yiaddr(&ack), wanted);
        wanted
    };
    let first = lease(b"\xff0002c903001");
    let second = lease(b"\xff0002c903002");
    assert_ne!(first, second);
    assert_eq!(lease(b"\xff0002c903001"), first, "it comes back");
    // It is not the listed host whose MAC it names.
    assert_ne!(lease(&[1, 0x52, 0x54, 0, 0, 0, 2]), [10, 77, 0, 12]);
}

/// The machine's other address is reached by whatever interface a route leads to.
#[test]
fn a_renewal_for_another_interfaces_address_is_answered_from_it() {
    let Some(lab) = Lab::for_test("weakhost") else {
        return;
    };
    for command in [
        "link add other0 type veth peer name other1",
        "addr add 10.44.0.1/24 dev other0",
        "link set other0 up",
        "link set other1 up",
    ] {
        ok(lab.appliance().ip(&command.split(' ').collect::<Vec<_>>()));
    }
    let other = "  other: {subnet: 10.44.0.0/24, pool: 10.44.0.100-10.44.0.110}\nprofiles:\n";
    let inventory = INVENTORY.replace("profiles:\n", other);
    let (data, logs) = (ok(fake::data_dir(lab.dir())), lab.dir().join("logs"));
    let site = ok(Site::start_everywhere(lab, &inventory, &data, &logs));
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    ok(client.ip(&["addr", "add", "10.77.0.11/24", "dev", "eth0"]));
    ok(client.ip(&["route", "add", "10.44.0.1", "via", APPLIANCE]));
    let own = Ipv4Addr::new(10, 77, 0, 11);
    let socket = client_port(&client, own);
    let mut renew = message([1, 6], &[0x52, 0x54, 0, 0, 0, 1], 3, &[]);
    renew[12..16].copy_from_slice(&own.octets());
    for server in [Ipv4Addr::new(10, 44, 0, 1), Ipv4Addr::new(10, 77, 0, 1)] {
        let (ack, from) = ask(&socket, server, &renew);
        assert_eq!(
            (option(&ack, 53), yiaddr(&ack)),
            (Some(vec![5]), own.octets())
        );
        assert_eq!(from, SocketAddr::from((server, 67)));
        assert_eq!(option(&ack, 54), Some(server.octets().to_vec()));
    }
}
