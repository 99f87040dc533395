//! HTTPS, and an API with a port of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::fake::{self, INVENTORY};
use crate::lab::{Lab, Namespace, Site, bridgehead, io_error, output, until};
use crate::ok;

const SERVER: &str = "server: {api: 8081, tls: {certificate: tls.pem, key: tls.key, port: 8443}}";

/// Writes a new key and a certificate for the daemon's address that is its own CA.
pub(crate) fn write_keys(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["10.77.0.1".to_owned()]);
    let made = made.unwrap_or_else(|error| panic!("{error}"));
    let (certificate, key) = (dir.join("tls.pem"), dir.join("tls.key"));
    ok(fs::write(&key, made.signing_key.serialize_pem()).map_err(io_error("write", &key)));
    ok(fs::set_permissions(&key, Permissions::from_mode(0o600)).map_err(io_error("chmod", &key)));
    ok(fs::write(&certificate, made.cert.pem()).map_err(io_error("write", &certificate)));
}

fn start(name: &str) -> Option<Site> {
    let lab = Lab::for_test(name)?;
    let data = ok(fake::data_dir(lab.dir()));
    write_keys(lab.dir());
    let inventory = INVENTORY.replace("site: test", &format!("site: test\n{SERVER}"));
    let logs = lab.dir().join("logs");
    Some(ok(Site::start(lab, &inventory, &data, &logs)))
}

fn client(site: &Site) -> Namespace {
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    ok(client.ip(&["addr", "add", "10.77.0.11/24", "dev", "eth0"]));
    client
}

/// The status that curl gets, `000` for none.
fn status(client: &Namespace, ca: &Path, url: &str) -> String {
    let ca = ca.display().to_string();
    let argv = [
        "curl",
        "-s",
        "-m",
        "20",
        "--cacert",
        &ca,
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        url,
    ];
    let done = ok(client.output(&argv));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn https_serves_files_and_takes_a_new_certificate_up() {
    let Some(site) = start("https") else { return };
    let client = client(&site);
    let ca = site.lab.dir().join("ca.pem");
    let served = site.lab.dir().join("tls.pem");
    let trust = || ok(fs::copy(&served, &ca).map_err(io_error("copy", &served)));
    trust();
    let url = "https://10.77.0.1:8443/files/kernels/debian/vmlinuz";
    let to = site.lab.dir().join("kernel");
    let (out, cacert) = (to.display().to_string(), ca.display().to_string());
    ok(client.run(&[
        "curl", "-sSf", "-m", "20", "--cacert", &cacert, "-o", &out, url,
    ]));
    let [got, kernel] = [to, site.data.join("kernels/debian/vmlinuz")]
        .map(|path| fs::read(&path).unwrap_or_else(|error| panic!("{error}")));
    assert!(got == kernel, "{} bytes of {}", got.len(), kernel.len());
    let health = "https://10.77.0.1:8443/healthz";
    assert_eq!(status(&client, &ca, health), "200");

    write_keys(site.lab.dir());
    let probe = || Ok((status(&client, &ca, health) == "000").then_some(()));
    let log = || site.daemon.log().tail(20);
    ok(until(
        "the new certificate",
        Duration::from_secs(20),
        probe,
        log,
    ));
    trust();
    assert_eq!(status(&client, &ca, health), "200");
}

#[test]
fn an_api_with_a_port_of_its_own_is_there_alone() {
    let Some(site) = start("apiport") else {
        return;
    };
    let client = client(&site);
    let ca = site.lab.dir().join("tls.pem");
    for (port, path, code) in [
        (8443, "/files/kernels/debian/vmlinuz", "200"),
        (8443, "/v1/status", "404"),
        (8443, "/metrics", "404"),
        (80, "/files/kernels/debian/vmlinuz", "200"),
        (80, "/boot/52:54:00:00:00:01/script.ipxe", "200"),
        (80, "/healthz", "200"),
        (80, "/v1/status", "404"),
        (80, "/metrics", "404"),
        (8081, "/v1/status", "200"),
        (8081, "/metrics", "200"),
        (8081, "/readyz", "200"),
        (8081, "/files/kernels/debian/vmlinuz", "404"),
        (8081, "/boot/52:54:00:00:00:01/script.ipxe", "404"),
    ] {
        let scheme = if port == 80 { "http" } else { "https" };
        let url = format!("{scheme}://10.77.0.1:{port}{path}");
        assert_eq!(status(&client, &ca, &url), code, "{url}");
    }
    // What operators ask for does not go in the clear where there are keys.
    let clear = "http://10.77.0.1:8081/v1/status";
    assert_eq!(status(&client, &ca, clear), "000");
}

#[test]
fn an_api_port_without_keys_speaks_http_and_so_it_stays_until_a_restart() {
    let Some(lab) = Lab::for_test("apiclear") else {
        return;
    };
    let data = ok(fake::data_dir(lab.dir()));
    write_keys(lab.dir());
    let clear = INVENTORY.replace("site: test", "site: test\nserver: {api: 8081}");
    let logs = lab.dir().join("logs");
    let mut site = ok(Site::start(lab, &clear, &data, &logs));
    let client = client(&site);
    let ca = site.lab.dir().join("tls.pem");
    assert_eq!(
        status(&client, &ca, "http://10.77.0.1:8081/v1/status"),
        "200"
    );
    let with_tls = INVENTORY.replace("site: test", &format!("site: test\n{SERVER}"));
    ok(site.edit(&with_tls));
    let said = "the ports under `server:` changed: restart the daemon";
    ok(site.daemon.wait_for(said, Duration::from_secs(20)));
    assert_eq!(
        status(&client, &ca, "http://10.77.0.1:8081/v1/status"),
        "200"
    );
}

#[test]
fn the_certificates_end_is_a_metric() {
    let Some(site) = start("tlsmetric") else {
        return;
    };
    let client = client(&site);
    let ca = site.lab.dir().join("tls.pem").display().to_string();
    // What rcgen makes by itself.
    let end = rcgen::date_time_ymd(4096, 1, 1).unix_timestamp();
    let url = "https://10.77.0.1:8081/metrics";
    let metrics = ok(client.run(&["curl", "-sSf", "-m", "20", "--cacert", &ca, url]));
    let line = format!("bridgehead_tls_certificate_not_after_seconds {end}");
    assert!(metrics.contains(&line), "{line} is not in {metrics}");
}

/// What `check` says, and its exit code.
fn check(dir: &Path, data: &Path) -> (Option<i32>, String) {
    let file = dir.join("hosts.yaml");
    let inventory = INVENTORY.replace("site: test", &format!("site: test\n{SERVER}"));
    ok(fs::write(&file, inventory).map_err(io_error("write", &file)));
    let (file, data) = (file.display().to_string(), data.display().to_string());
    let argv = [bridgehead(), "check", "--inventory", &file, "--data", &data];
    let done = ok(output(&argv));
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    (done.status.code(), said.into_owned())
}

#[test]
fn keys_that_others_read_or_that_do_not_fit_are_refused_and_an_old_certificate_is_warned_of() {
    let dir = ok(tempfile::tempdir().map_err(io_error("make a directory in", "/tmp".as_ref())));
    let data = ok(fake::data_dir(dir.path()));
    let (certificate, key) = (dir.path().join("tls.pem"), dir.path().join("tls.key"));
    write_keys(dir.path());
    let (code, said) = check(dir.path(), &data);
    assert_eq!(code, Some(0), "{said}");
    let chmod =
        |mode| {
            ok(fs::set_permissions(&key, Permissions::from_mode(mode))
                .map_err(io_error("chmod", &key)))
        };
    chmod(0o644);
    let (code, said) = check(dir.path(), &data);
    assert!(code == Some(3) && said.contains("mode 0644"), "{said}");
    chmod(0o600);
    let first = ok(fs::read(&certificate).map_err(io_error("read", &certificate)));
    write_keys(dir.path());
    ok(fs::write(&certificate, first).map_err(io_error("write", &certificate)));
    let (code, said) = check(dir.path(), &data);
    assert!(
        code == Some(3) && said.contains("belong together"),
        "{said}"
    );

    let mut old = rcgen::CertificateParams::new(vec!["10.77.0.1".to_owned()])
        .unwrap_or_else(|error| panic!("{error}"));
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    old.not_before = rcgen::date_time_ymd(2019, 1, 1);
    let pair = rcgen::KeyPair::generate().unwrap_or_else(|error| panic!("{error}"));
    let old = old
        .self_signed(&pair)
        .unwrap_or_else(|error| panic!("{error}"));
    ok(fs::write(&key, pair.serialize_pem()).map_err(io_error("write", &key)));
    ok(fs::write(&certificate, old.pem()).map_err(io_error("write", &certificate)));
    let (code, said) = check(dir.path(), &data);
    assert!(
        code == Some(0) && said.contains("ended on 2020-01-01"),
        "{code:?} {said}"
    );
}
