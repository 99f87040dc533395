//! Boot files by TFTP and HTTP, fetched by the clients that administrators test with.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fake::LOADER;
use crate::lab::{APPLIANCE, Namespace, Process, Result, Site, io_error, until};
use crate::{ok, site};

const MAC: &str = "52:54:00:00:00:01";

/// A client with an address of its own on the boot network.
fn client(site: &Site) -> Namespace {
    let client = ok(site.lab.client("client", MAC));
    ok(client.ip(&["addr", "add", "10.77.0.11/24", "dev", "eth0"]));
    client
}

fn read(path: &Path) -> Vec<u8> {
    ok(fs::read(path).map_err(io_error("read", path)))
}

/// Fetches `name` by TFTP with each client; gives what arrived, or `None` where the client said no.
fn fetch(site: &Site, client: &Namespace, name: &str) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let out = site.lab.dir().join("fetched");
    let to = out.display().to_string();
    let url = format!("tftp://{APPLIANCE}/{name}");
    let hpa = format!("printf 'binary\\nget %s %s\\n' '{name}' '{to}' | tftp {APPLIANCE}");
    let runs: [(&str, Vec<&str>); 6] = [
        ("tftp-hpa", vec!["sh", "-c", &hpa]),
        (
            "atftp",
            vec!["atftp", "--get", "-r", name, "-l", &to, APPLIANCE],
        ),
        (
            "atftp with options",
            vec![
                "atftp",
                "--option",
                "blksize 1468",
                "--option",
                "tsize",
                "--option",
                "windowsize 8",
                "--get",
                "-r",
                name,
                "-l",
                &to,
                APPLIANCE,
            ],
        ),
        (
            "BusyBox",
            vec![
                "busybox", "tftp", "-b", "1468", "-g", "-r", name, "-l", &to, APPLIANCE,
            ],
        ),
        (
            "curl",
            vec!["curl", "-sS", "--path-as-is", "-m", "20", "-o", &to, &url],
        ),
        (
            "curl, large blocks",
            vec![
                "curl",
                "-sS",
                "--path-as-is",
                "--tftp-blksize",
                "8192",
                "-m",
                "20",
                "-o",
                &to,
                &url,
            ],
        ),
    ];
    runs.into_iter()
        .map(|(tool, argv)| {
            let _ = fs::remove_file(&out);
            // atftp and tftp-hpa don't say no by their exit code; what arrived does.
            ok(client.output(&[&["timeout", "60"], argv.as_slice()].concat()));
            (tool, fs::read(&out).ok().filter(|bytes| !bytes.is_empty()))
        })
        .collect()
}

#[test]
fn tftp_clients_fetch_a_loader() {
    let Some(site) = site("tftp") else { return };
    let client = client(&site);
    let loader = read(&site.data.join("loaders").join(LOADER));
    for (tool, got) in fetch(&site, &client, LOADER) {
        let got =
            got.unwrap_or_else(|| panic!("{tool} got nothing\n{}", site.daemon.log().tail(20)));
        assert!(
            got == loader,
            "{tool}: {} of {} bytes",
            got.len(),
            loader.len()
        );
    }
}

#[test]
fn nothing_outside_the_data_directory_is_served() {
    let Some(site) = site("traversal") else {
        return;
    };
    let client = client(&site);
    let secret = site.lab.dir().join("secret");
    ok(fs::write(&secret, "secret").map_err(io_error("write", &secret)));
    let link = site.data.join("loaders/link.efi");
    ok(symlink(&secret, &link).map_err(io_error("link", &link)));
    let names = [
        "../../secret",
        "/../../secret",
        "loaders/../../secret",
        "..\\..\\secret",
        "link.efi",
        "loaders/link.efi",
        "/etc/passwd",
        "../hosts.yaml",
    ];
    let absolute = secret.display().to_string();
    for name in names.into_iter().chain([absolute.as_str()]) {
        for (tool, got) in fetch(&site, &client, name) {
            assert_eq!(got, None, "{tool} got {name}");
        }
        for prefix in ["", "files/", "files/loaders/"] {
            let url = format!("http://{APPLIANCE}/{prefix}{name}");
            let code = status_of(&client, &[&url]);
            assert!(code.starts_with('4'), "{code} for {url}");
        }
    }
}

/// The HTTP status that curl got.
fn status_of(client: &Namespace, args: &[&str]) -> String {
    let fixed = [
        "curl",
        "-s",
        "-m",
        "20",
        "--path-as-is",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    ];
    ok(client.run(&[&fixed, args].concat()))
}

fn curl(client: &Namespace, args: &[&str]) -> Result<String> {
    client.run(&[&["curl", "-sS", "-f", "-m", "20"], args].concat())
}

/// The first URL in `text` that ends so.
fn url_in(text: &str, end: &str) -> String {
    let words = text
        .split_whitespace()
        .filter(|word| word.starts_with("http://"));
    let found = words.into_iter().find(|word| word.ends_with(end));
    found
        .unwrap_or_else(|| panic!("no URL that ends with {end} in:\n{text}"))
        .to_owned()
}

#[test]
fn a_loader_finds_its_script_kernel_and_initrd_by_http() {
    let Some(site) = site("http") else { return };
    let client = client(&site);
    let script = ok(curl(
        &client,
        &[&format!("http://{APPLIANCE}/boot/{MAC}/script.ipxe")],
    ));
    assert!(script.starts_with("#!ipxe"), "{script}");
    assert!(script.contains("bridgehead.host=kvm01"), "{script}");
    let files: [(String, PathBuf); 2] = [
        (
            url_in(&script, "vmlinuz"),
            site.data.join("kernels/debian/vmlinuz"),
        ),
        (
            url_in(&script, ".img"),
            site.data.join("initrds/default.img"),
        ),
    ];
    for (url, file) in files {
        check_download(&site, &client, &url, &read(&file));
    }
}

/// A slow line: what a boot fetches for minutes is no silence.
#[test]
fn a_file_on_its_way_is_told_as_far_as_it_is() {
    let Some(site) = site("moving") else { return };
    let image = site.data.join("initrds/default.img");
    let size = 48 << 20;
    ok(fs::write(&image, vec![7; size]).map_err(io_error("write", &image)));
    let client = client(&site);
    let url = format!("http://{APPLIANCE}/files/initrds/default.img");
    let length = format!("content-length: {size}\r\n");
    let probe = || {
        let head = curl(&client, &["-I", &url])?.to_ascii_lowercase();
        Ok(head.contains(&length).then_some(()))
    };
    ok(until("the initrd", Duration::from_secs(20), probe, || {
        site.daemon.log().tail(9)
    }));
    let script = format!("http://{APPLIANCE}/boot/{MAC}/script.ipxe");
    ok(curl(&client, &[&script]));
    let argv = ["curl", "-s", "-o", "/dev/null", "--limit-rate", "2M", &url];
    let log = site.lab.dir().join("slow.log");
    let slow = ok(Process::spawn("curl", client.name(), &argv, &log));
    let told = || {
        let status = site.daemon.status()?;
        let host = status
            .host("kvm01")
            .and_then(|host| host.state.clone().zip(host.note.clone()));
        let moves = |(_, note): &(String, String)| note.contains(" of 48.0 MiB, ");
        Ok(host.filter(moves))
    };
    let log = || site.daemon.log().tail(9);
    let (state, note) = ok(until("how far it is", Duration::from_secs(20), told, log));
    assert_eq!(state, "running", "{note}");
    assert!(note.starts_with("initrds/default.img: "), "{note}");
    let why = ok(site.daemon.verb("why", &["kvm01"]));
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(
        why.contains("it is on its way: initrds/default.img: "),
        "{why}"
    );
    drop(slow);
    // The client has gone in the middle.
    let told = || {
        let status = site.daemon.status()?;
        let note = status.host("kvm01").and_then(|host| host.note.clone());
        Ok(note.filter(|note| note.contains("cut off after")))
    };
    ok(until("its end", Duration::from_secs(20), told, log));
}

/// Whole, by HEAD, and in parts (RFC 9110 section 14): UEFI HTTP boot asks for the size first.
fn check_download(site: &Site, client: &Namespace, url: &str, file: &[u8]) {
    let out = site.lab.dir().join("downloaded");
    let to = out.display().to_string();
    ok(curl(client, &["-o", &to, url]));
    assert!(read(&out) == file, "{url} differs");
    let head = ok(curl(client, &["-I", url])).to_ascii_lowercase();
    let length = format!("content-length: {}\r\n", file.len());
    assert!(head.contains(&length), "{head}");
    for (range, part) in [
        ("0-99", &file[..100]),
        ("1000-1999", &file[1000..2000]),
        ("-10", &file[file.len() - 10..]),
    ] {
        ok(curl(client, &["-r", range, "-o", &to, url]));
        assert!(read(&out) == part, "range {range} of {url}");
    }
    let beyond = format!("{}-", file.len());
    assert_eq!(status_of(client, &["-r", &beyond, url]), "416");
}
