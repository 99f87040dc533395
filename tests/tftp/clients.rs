//! Real clients.

use std::path::Path;
use std::process::{Command, Output};

use bridgehead::tftp::{Ended, What};
use bridgehead::wire::tftp::{ErrorCode, Options};

use crate::support::{Served, image, serve};

/// Runs a client in `dir`, bounded in time, without the locale's translations.
#[track_caller]
fn run(package: &str, dir: &Path, command: &[&str]) -> Output {
    let output = Command::new("timeout")
        .arg("60")
        .args(command)
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output();
    let output = output.expect("failed to run timeout (package coreutils)");
    assert_ne!(
        output.status.code(),
        Some(127),
        "{} is missing: install the package {package} (apt-get install {package})",
        command[0]
    );
    output
}

fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{out}{err}")
}

/// Fetches by `command`, which must write `out`, and compares; returns the server's view.
#[track_caller]
fn fetches(served: &mut Served, package: &str, command: &[&str], expected: &[u8]) -> Agreed {
    let dir = tempfile::tempdir().unwrap();
    let output = run(package, dir.path(), command);
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    let got = std::fs::read(dir.path().join("out")).unwrap();
    assert!(got == expected, "{command:?}: file differs");
    let agreed = served.event(|event| match event.what {
        What::Started { terms, .. } => Some(terms),
        _ => None,
    });
    let outcome = served.outcome();
    assert_eq!(outcome.ended, Ended::Done, "{command:?}");
    assert_eq!(outcome.bytes_acked, expected.len() as u64);
    Agreed(agreed.granted)
}

struct Agreed(Options);

#[test]
fn tftp_hpa_gets_files() {
    let mut served = serve();
    let port = served.address.port().to_string();
    for (name, expected) in [
        ("boot/image", image().to_vec()),
        ("/boot/image", image().to_vec()),
        ("\\boot\\image", image().to_vec()),
        ("empty", Vec::new()),
        ("kilobyte", image()[..1024].to_vec()),
    ] {
        let command = [
            "tftp",
            "-m",
            "binary",
            "127.0.0.1",
            &port,
            "-c",
            "get",
            name,
            "out",
        ];
        let agreed = fetches(&mut served, "tftp-hpa", &command, &expected);
        assert!(agreed.0.is_empty(), "tftp-hpa asks for no option");
    }
}

#[test]
fn tftp_hpa_is_refused_in_words() {
    let served = serve();
    let port = served.address.port().to_string();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mine"), "mine").unwrap();
    let get = ["tftp", "127.0.0.1", &port, "-c", "get", "absent", "out"];
    let output = run("tftp-hpa", dir.path(), &get);
    assert!(
        said(&output).contains("Error code 1: file not found"),
        "{}",
        said(&output)
    );
    let put = ["tftp", "127.0.0.1", &port, "-c", "put", "mine", "mine"];
    let output = run("tftp-hpa", dir.path(), &put);
    assert!(
        said(&output).contains("Error code 2: this server only reads"),
        "{}",
        said(&output)
    );
}

#[test]
fn tftp_hpa_gets_text_as_it_is() {
    let mut served = serve();
    let port = served.address.port().to_string();
    // tftp-hpa undoes CR LF and CR NUL on its side; of a file without CR nothing may change.
    let expected = b"hello\nworld\n";
    let command = [
        "tftp",
        "-m",
        "netascii",
        "127.0.0.1",
        &port,
        "-c",
        "get",
        "small",
        "out",
    ];
    let dir = tempfile::tempdir().unwrap();
    let output = run("tftp-hpa", dir.path(), &command);
    assert!(output.status.success(), "{}", said(&output));
    let got = std::fs::read(dir.path().join("out")).unwrap();
    assert_eq!(got, expected);
    assert_eq!(served.outcome().bytes_acked, 13);
}

#[test]
fn atftp_gets_files_with_options() {
    let mut served = serve();
    let port = served.address.port().to_string();
    let command = [
        "atftp",
        "--option",
        "blksize 1432",
        "--option",
        "tsize",
        "--option",
        "timeout 3",
        "--get",
        "-r",
        "boot/image",
        "-l",
        "out",
        "127.0.0.1",
        &port,
    ];
    let agreed = fetches(&mut served, "atftp", &command, &image()).0;
    assert_eq!(agreed.block_size, Some(1432));
    assert_eq!(agreed.transfer_size, Some(image().len() as u64));
    assert_eq!(agreed.timeout, Some(3));
}

#[test]
fn atftp_gets_files_in_windows() {
    let mut served = serve();
    let port = served.address.port().to_string();
    for window in ["1", "4", "16"] {
        let option = format!("windowsize {window}");
        let command = [
            "atftp",
            "--option",
            "blksize 1468",
            "--option",
            &option,
            "--get",
            "-r",
            "boot/image",
            "-l",
            "out",
            "127.0.0.1",
            &port,
        ];
        let agreed = fetches(&mut served, "atftp", &command, &image()).0;
        assert_eq!(
            agreed.window_size.map(|w| w.to_string()),
            Some(window.into())
        );
    }
}

#[test]
fn curl_gets_files() {
    let mut served = serve();
    for (size, granted) in [("512", 512), ("1468", 1468), ("65464", 65464)] {
        let url = format!("tftp://{}/boot/image", served.address);
        let command = ["curl", "-sS", "--tftp-blksize", size, "-o", "out", &url];
        let agreed = fetches(&mut served, "curl", &command, &image()).0;
        assert_eq!(agreed.block_size, Some(granted));
        assert_eq!(agreed.transfer_size, Some(image().len() as u64));
    }
}

#[test]
fn curl_without_options_gets_files() {
    let mut served = serve();
    let url = format!("tftp://{}/boot/image", served.address);
    let command = ["curl", "-sS", "--tftp-no-options", "-o", "out", &url];
    let agreed = fetches(&mut served, "curl", &command, &image()).0;
    assert!(agreed.is_empty());
}

#[test]
fn curl_is_refused() {
    let mut served = serve();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("tftp://{}/absent", served.address);
    let output = run("curl", dir.path(), &["curl", "-sS", "-o", "out", &url]);
    // 68: file not found on TFTP server (curl's manual).
    assert_eq!(output.status.code(), Some(68), "{}", said(&output));
    let refusal = served.event(|event| match event.what {
        What::Refused { because, .. } => Some(because),
        _ => None,
    });
    assert_eq!(refusal.code, ErrorCode::FileNotFound);
}

#[test]
fn busybox_gets_files() {
    let mut served = serve();
    let port = served.address.port().to_string();
    for size in ["512", "1428", "16384"] {
        let command = [
            "busybox",
            "tftp",
            "-g",
            "-b",
            size,
            "-r",
            "boot/image",
            "-l",
            "out",
            "127.0.0.1",
            &port,
        ];
        fetches(&mut served, "busybox-static", &command, &image());
    }
}
