//! What the policy answers to the requests of real clients with firmware's options in them, which no such client would
//! send: the client must find its lease in it all the same.
//!
//! Beside tests/properties, where answers are read by parsers.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::clients::{Program, lease};
use crate::lab::{APPLIANCE, BOOT_INTERFACE, Lab, Result, io_error};
use crate::ok;
use crate::property::{FIXED, Options, answers, walk};

/// In errors.
const PORT: &str = "port 67 on the boot network";

/// Options by number, in place of the client's own.
type Disguise = &'static [(u8, &'static [u8])];

const PXE: (u8, &[u8]) = (60, b"PXEClient:Arch:00000:UNDI:002001");
const GUID: (u8, &[u8]) = (
    97,
    &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
);
const RELAY: (u8, &[u8]) = (82, b"\x01\x08ge-0/0/1\x02\x06\x52\x54\x00\x00\x00\x99");
/// Of codes that we know, that we don't, and that are no option.
const EVERYTHING: [u8; 255] = {
    let mut codes = [0; 255];
    let mut at = 0;
    while at < codes.len() {
        codes[at] = at as u8;
        at += 1;
    }
    codes
};

const DISGUISES: [Disguise; 8] = [
    &[],
    &[PXE, GUID, (93, &[0, 0]), (94, &[1, 2, 1])],
    &[PXE, (77, b"iPXE"), (175, &[0xb1, 1, 1]), (93, &[0, 0])],
    &[
        (60, b"PXEClient:Arch:00007:UNDI:003016"),
        GUID,
        (93, &[0, 7]),
    ],
    &[
        (60, b"HTTPClient:Arch:00016:UNDI:003001"),
        GUID,
        (93, &[0, 16]),
    ],
    &[RELAY, PXE],
    &[(55, &EVERYTHING), (57, &[0xff, 0xff])],
    &[(57, &[0, 0]), RELAY, (55, &[66, 67, 43, 43, 43])],
];

/// The request with other options.
fn disguise(request: &[u8], disguise: Disguise) -> Option<Vec<u8>> {
    let own = walk(&request[..][FIXED..]).ok()?;
    let is_kept = |code: u8| disguise.iter().all(|(other, _)| *other != code);
    let mut options: Options = own.into_iter().filter(|(code, _)| is_kept(*code)).collect();
    options.extend(disguise.iter().map(|(code, data)| (*code, data.to_vec())));
    let mut bytes = request[..FIXED].to_vec();
    for (code, data) in options {
        for part in data.chunks(255) {
            bytes.extend([code, part.len() as u8]);
            bytes.extend(part);
        }
    }
    bytes.push(255);
    Some(bytes)
}

/// Where a server of the boot network listens.
fn listen() -> Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:67").and_then(|socket| {
        setsockopt(&socket, sockopt::BindToDevice, &BOOT_INTERFACE.into())?;
        socket.set_broadcast(true)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(socket)
    });
    socket.map_err(io_error("listen at", PORT.as_ref()))
}

/// Answers whoever asks until `done`, each as if it had asked with `options`.
fn serve(socket: &UdpSocket, options: Disguise, done: &AtomicBool) -> Result<()> {
    let mut buffer = [0; 1500];
    while !done.load(Ordering::Relaxed) {
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(io_error("receive at", PORT.as_ref())(error)),
        };
        // The first is for a broadcast from the network that has 10.77.0.1.
        let asked = disguise(&buffer[..length], options);
        if let Some(answer) = asked.and_then(|asked| answers(&asked).into_iter().next()) {
            let sent = socket.send_to(&answer, "255.255.255.255:68");
            sent.map_err(io_error("answer at", PORT.as_ref()))?;
        }
    }
    Ok(())
}

#[test]
fn clients_find_their_lease_in_whatever_is_answered() {
    let Some(lab) = Lab::for_test("answers") else {
        return;
    };
    let client = ok(lab.client("client", "52:54:00:00:00:01"));
    let socket = &ok(ok(lab.appliance().enter(listen)));
    let reserved = ("10.77.0.11".to_owned(), APPLIANCE.to_owned());
    for program in [Program::Udhcpc, Program::Dhclient, Program::Dhcpcd] {
        for options in DISGUISES {
            let done = &AtomicBool::new(false);
            let given = thread::scope(|scope| {
                scope.spawn(|| ok(serve(socket, options, done)));
                let given = lease(program, &client, lab.dir(), None);
                done.store(true, Ordering::Relaxed);
                given
            });
            let given = given.unwrap_or_else(|error| panic!("{program:?}, {options:?}: {error}"));
            let right = (given.address.to_string(), given.server.to_string());
            assert_eq!(right, reserved, "{program:?}, {options:?}");
        }
    }
}
