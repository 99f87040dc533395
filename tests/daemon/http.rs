//! HTTP as firmware, loaders and worse speak it: raw requests, fair shares, turns.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::fake::{self, INVENTORY};
use crate::lab::{Lab, Namespace, Site, until};
use crate::{ok, site};

const KVM01: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const KVM02: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);
const KERNEL: &str = "/files/kernels/debian/vmlinuz";

/// Two hosts' addresses in one namespace.
fn hosts(site: &Site) -> Namespace {
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    for address in [KVM01, KVM02] {
        let address = format!("{address}/24");
        ok(client.ip(&["addr", "add", &address, "dev", "eth0"]));
    }
    client
}

fn connect(from: Ipv4Addr, receive_buffer: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if let Some(size) = receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    socket.bind(&SocketAddrV4::new(from, 0).into())?;
    socket.connect(&SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 80).into())?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(socket.into())
}

/// Sends `request` and reads to the end of the connection.
fn ask(client: &Namespace, request: &str) -> String {
    let answer = ok(client.enter(|| -> io::Result<Vec<u8>> {
        let mut stream = connect(KVM01, None)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }));
    let answer = answer.unwrap_or_else(|error| panic!("{request:?}: {error}"));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn requests_as_the_rfc_and_firmware_have_them() {
    let Some(site) = site("requests") else {
        return;
    };
    let client = hosts(&site);
    let whole = "content-length: 3000007\r\n";
    let loader = "/files/loaders/snponly.efi";
    let close = "Host: x\r\nConnection: close\r\n";
    for (request, status, within) in [
        (
            format!("GET {KERNEL} HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 200 ",
            whole,
        ),
        // Firmware of 2012: no Host, no keep-alive.
        (
            format!("GET {KERNEL} HTTP/1.0\r\n\r\n"),
            "HTTP/1.0 200 ",
            whole,
        ),
        (
            format!("GET http://boot:80{KERNEL} HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 200 ",
            whole,
        ),
        (
            format!("HEAD {KERNEL} HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 200 ",
            whole,
        ),
        (
            format!("HEAD {KERNEL} HTTP/1.1\r\n{close}Range: bytes=0-1\r\n\r\n"),
            "HTTP/1.1 200 ",
            whole,
        ),
        (
            format!("GET {loader} HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 200 ",
            "content-type: application/efi\r\n",
        ),
        (
            format!("GET {KERNEL} HTTP/1.1\r\n{close}Range: bytes=5-8\r\n\r\n"),
            "HTTP/1.1 206 ",
            "content-range: bytes 5-8/3000007\r\n",
        ),
        (
            format!("GET {KERNEL} HTTP/1.1\r\n{close}Range: bytes=0-1,5-8\r\n\r\n"),
            "HTTP/1.1 200 ",
            whole,
        ),
        (
            format!("GET {KERNEL} HTTP/1.1\r\n{close}Range: bytes=3000007-\r\n\r\n"),
            "HTTP/1.1 416 ",
            "content-range: bytes */3000007\r\n",
        ),
        (
            format!("GET {KERNEL} HTTP/1.1\r\n{close}If-None-Match: *\r\n\r\n"),
            "HTTP/1.1 304 ",
            "etag: \"",
        ),
        (
            format!(
                "GET {KERNEL} HTTP/1.1\r\n{close}Expect: 100-continue\r\nContent-Length: 0\r\n\r\n"
            ),
            "HTTP/1.1 200 ",
            whole,
        ),
        (
            format!("POST {KERNEL} HTTP/1.1\r\n{close}Content-Length: 0\r\n\r\n"),
            "HTTP/1.1 405 ",
            "allow: GET,HEAD\r\n",
        ),
        (
            format!("GET /v1/boot/kvm01/events HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 405 ",
            "allow: POST\r\n",
        ),
        (
            format!("GET /files/nothing HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 404 ",
            "not served",
        ),
        (
            format!("GET /files/kernels/../kernels/debian/vmlinuz HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 404 ",
            "",
        ),
        (
            format!("GET /files/..%2f..%2fhosts.yaml HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 404 ",
            "",
        ),
        (
            format!("GET /files/%2e%2e/hosts.yaml HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 404 ",
            "",
        ),
        (
            format!("GET /files/kernels%2Fdebian%2Fvmlinuz HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 200 ",
            whole,
        ),
        (
            format!("GET /files/%ff%fe HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 400 ",
            "UTF-8",
        ),
        (
            format!("GET /boot/52-54/script.ipxe HTTP/1.1\r\n{close}\r\n"),
            "HTTP/1.1 400 ",
            "52-54",
        ),
        ("GARBAGE\r\n\r\n".to_owned(), "HTTP/1.1 400 ", ""),
    ] {
        let answer = ask(&client, &request);
        let head = answer.split("\r\n\r\n").next().unwrap_or_default();
        let shown = format!("{request:?}: {head}");
        assert!(answer.starts_with(status), "{shown}");
        assert!(answer.contains(within), "{within:?} is not in {shown}");
        if status.ends_with("200 ") && request.starts_with("GET") {
            assert!(answer.len() > 100_000, "{shown}");
        }
    }
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let Some(site) = site("keepalive") else {
        return;
    };
    let client = hosts(&site);
    // The second comes before the first is answered (RFC 9112 section 9.3.2).
    let range = "Host: x\r\nRange: bytes=0-0\r\n";
    let request = format!(
        "GET {KERNEL} HTTP/1.1\r\n{range}\r\nHEAD {KERNEL} HTTP/1.1\r\nHost: x\r\n\r\n\
         GET /files/initrds/default.img HTTP/1.1\r\n{range}Connection: close\r\n\r\n"
    );
    let answer = ask(&client, &request);
    assert_eq!(answer.matches("HTTP/1.1 206 ").count(), 2, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
}

#[test]
fn busybox_fetches_a_kernel_whole() {
    let Some(site) = site("busybox") else {
        return;
    };
    let client = hosts(&site);
    let to = site.lab.dir().join("kernel");
    let (out, url) = (
        to.display().to_string(),
        format!("http://10.77.0.1{KERNEL}"),
    );
    ok(client.run(&["busybox", "wget", "-q", "-O", &out, &url]));
    let [got, kernel] = [to, site.data.join("kernels/debian/vmlinuz")]
        .map(|path| std::fs::read(&path).unwrap_or_else(|error| panic!("{error}")));
    assert!(got == kernel, "{} bytes of {}", got.len(), kernel.len());
}

/// Waits for `words` in the story of a host.
fn told(site: &Site, host: &str, words: &str) {
    let text = || {
        let said = site.daemon.verb("log", &[host])?;
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    };
    let probe = || Ok(text()?.contains(words).then_some(()));
    let context = || text().unwrap_or_default();
    ok(until(words, Duration::from_secs(10), probe, context));
}

#[test]
fn who_watches_too_often_is_cut_and_what_it_reports_is_not() {
    let Some(site) = site("watchers") else { return };
    let client = hosts(&site);
    let last = "HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let many = "HEAD /v1/status HTTP/1.1\r\nHost: x\r\n\r\n".repeat(300) + last;
    let answer = ask(&client, &many);
    let count = |words: &str| answer.matches(words).count();
    assert!(count("HTTP/1.1 200 ") >= 41, "{answer}");
    assert!(count("HTTP/1.1 429 ") > 0, "{answer}");
    assert_eq!(count("retry-after: 1\r\n"), count("HTTP/1.1 429 "));
    let post = "POST /v1/boot/kvm01/events HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let answer = ask(&client, &(post.repeat(300) + last));
    assert_eq!(answer.matches("HTTP/1.1 400 ").count(), 300, "{answer}");
}

#[test]
fn one_address_does_not_get_all_connections() {
    let Some(site) = site("percap") else { return };
    let client = hosts(&site);
    let mut held = Vec::new();
    let answer = ok(client.enter(|| -> io::Result<String> {
        for _ in 0..256 {
            held.push(connect(KVM01, None)?);
        }
        let mut one_more = connect(KVM01, None)?;
        let mut answer = String::new();
        one_more.read_to_string(&mut answer)?;
        // The next is another's.
        let mut other = connect(KVM02, None)?;
        write!(other, "HEAD {KERNEL} HTTP/1.0\r\n\r\n")?;
        other.read_to_string(&mut answer)?;
        Ok(answer)
    }));
    let answer = answer.unwrap_or_else(|error| panic!("{error}"));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("Retry-After: 5\r\n"), "{answer}");
    assert!(answer.contains("HTTP/1.0 200 "), "{answer}");
    told(&site, "kvm01", "has 256 HTTP connections");
}

/// Sends a GET of the kernel.
fn get_kernel(from: Ipv4Addr, receive_buffer: Option<usize>) -> io::Result<TcpStream> {
    let mut stream = connect(from, receive_buffer)?;
    write!(stream, "GET {KERNEL} HTTP/1.0\r\n\r\n")?;
    Ok(stream)
}

#[test]
fn large_transfers_take_turns_and_show_a_sign_of_life() {
    let Some(lab) = Lab::for_test("turns") else {
        return;
    };
    let data = ok(fake::data_dir(lab.dir()));
    let inventory = INVENTORY.replace("site: test", "site: test\nserver: {transfers: 1}");
    let logs = lab.dir().join("logs");
    let site = ok(Site::start(lab, &inventory, &data, &logs));
    let client = hosts(&site);
    // The first takes nothing, and keeps the second waiting.
    let first = ok(client.enter(|| get_kernel(KVM01, Some(4096))));
    let first = first.unwrap_or_else(|error| panic!("{error}"));
    ok(until(
        "the first transfer",
        Duration::from_secs(10),
        || {
            Ok((ok(site.daemon.verb("status", &["--json"])).stdout)
                .windows(11)
                .any(|w| w == b"\"running\":1")
                .then_some(()))
        },
        String::new,
    ));
    let mut second =
        ok(client.enter(|| get_kernel(KVM02, None))).unwrap_or_else(|error| panic!("{error}"));
    told(&site, "kvm02", "waits for its turn, 0 before it");
    let (began, mut got) = (Instant::now(), Vec::new());
    let mut buffer = [0; 4096];
    // The head at once, and 1 KiB every two seconds.
    while got.len() < 2048 {
        let length = second
            .read(&mut buffer)
            .unwrap_or_else(|error| panic!("{error}"));
        got.extend_from_slice(&buffer[..length]);
        assert!(length > 0 && got.len() < 8192, "{} bytes", got.len());
    }
    assert!(began.elapsed() > Duration::from_secs(3), "it did not wait");
    drop(first);
    second
        .read_to_end(&mut got)
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(got.len() > 3_000_007, "{} bytes", got.len());
    told(&site, "kvm02", "s in the queue");
}
