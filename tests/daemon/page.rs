//! The page in a real browser: a boot is followed live, and what machines say stays text.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::approve::{inventory as writable, token};
use crate::discover::{BARE, Stranger};
use crate::fake::INVENTORY;
use crate::host_files::{Booting, KVM01};
use crate::lab::{APPLIANCE, Lab, Namespace, Process, Site, io_error, output, until};
use crate::tls::write_keys;
use crate::{fake, ok, site, site_with};

/// What nobody may get a browser to run.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken over'\">";
/// A browser on a busy machine starts slowly, and draws slowly.
const PATIENCE: Duration = Duration::from_secs(90);
const PORT: &str = "--port=9515";

fn inventory() -> String {
    INVENTORY
        .replace("kvm01: {", "kvm01: {rack: r1, unit: 3, ")
        .replace("kvm02: {", "kvm02: {rack: r1, unit: 1, ")
}

/// Chromium in a namespace, by WebDriver (W3C Recommendation): JSON over HTTP.
struct Browser<'a> {
    namespace: &'a Namespace,
    /// `/session/ID`.
    session: String,
    _driver: Process,
}

impl<'a> Browser<'a> {
    fn start(namespace: &'a Namespace, scratch: &Path) -> Self {
        let log = scratch.join("chromedriver.log");
        let mut driver = ok(Process::spawn(
            "chromedriver",
            namespace.name(),
            &["chromedriver", PORT],
            &log,
        ));
        ok(driver.wait_for("started successfully", PATIENCE));
        let profile = format!("--user-data-dir={}", scratch.join("browser").display());
        // Root's browser has no sandbox, and a namespace has no other networks to be curious about.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--window-size=1100,800",
            "--ignore-certificate-errors",
            &profile,
        ];
        let options = json!({"browserName": "chrome", "goog:chromeOptions": {"args": arguments}});
        let mut browser = Self {
            namespace,
            session: "/session".to_owned(),
            _driver: driver,
        };
        let begun = browser.ask("", &json!({"capabilities": {"alwaysMatch": options}}));
        browser.session += &format!("/{}", begun["sessionId"].as_str().expect("a session"));
        browser
    }

    /// Posts a command, or gets what needs none.
    fn ask(&self, command: &str, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:9515{}{command}", self.session);
        let body = body.to_string();
        let mut argv = vec!["curl", "-sS", "-m", "90", url.as_str()];
        if body != "null" {
            argv.extend(["-H", "Content-Type: application/json", "-d", &body]);
        }
        let text = ok(self.namespace.run(&argv));
        let answer: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(answer["value"]["error"].is_null(), "{command}: {answer}");
        answer["value"].clone()
    }

    fn go(&self, path: &str) {
        self.go_to(&format!("http://{APPLIANCE}{path}"));
    }

    fn go_to(&self, url: &str) {
        self.ask("/url", &json!({"url": url}));
    }

    /// A telephone in the dark.
    fn be_a_phone(&self) {
        for (command, parameters) in [
            (
                "Emulation.setEmulatedMedia",
                json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]}),
            ),
            (
                "Emulation.setDeviceMetricsOverride",
                json!({"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true}),
            ),
        ] {
            let body = json!({"cmd": command, "params": parameters});
            self.ask("/goog/cdp/execute", &body);
        }
    }

    /// Types into the form, and sends it.
    fn fill(&self, fields: &[(&str, &str)]) {
        for (name, value) in fields {
            self.run(&format!(
                "document.forms[0].elements[{}].value = {}",
                json!(name),
                json!(value)
            ));
        }
        self.run("window.sent = true; document.forms[0].requestSubmit()");
        self.wait(
            "the answer",
            "return !window.sent && document.readyState == 'complete'",
        );
    }

    fn text(&self, selector: &str) -> String {
        let script = format!(
            "return document.querySelector({})?.textContent ?? ''",
            json!(selector)
        );
        self.run(&script).as_str().unwrap_or_default().to_owned()
    }

    fn run(&self, script: &str) -> Value {
        self.ask("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until the script gives true.
    fn wait(&self, what: &str, script: &str) {
        let found = || Ok(self.run(script).as_bool().unwrap_or(false).then_some(()));
        ok(until(what, PATIENCE, found, || {
            self.run("return document.body.innerText").to_string()
        }));
    }

    /// Waits until an element has this text.
    fn shows(&self, selector: &str, text: &str) {
        let script = format!(
            "return document.querySelector({})?.textContent == {}",
            json!(selector),
            json!(text)
        );
        self.wait(&format!("{text} in {selector}"), &script);
    }

    /// A picture for people, beside the test's logs.
    fn picture(&self, path: &Path) {
        let png = self.ask("/screenshot", &Value::Null);
        let base64 = path.with_extension("base64");
        let text = png.as_str().expect("a picture");
        ok(fs::write(&base64, text).map_err(io_error("write", &base64)));
        let (from, to) = (base64.display().to_string(), path.display().to_string());
        ok(output(&[
            "sh",
            "-c",
            "base64 -d \"$0\" >\"$1\"",
            &from,
            &to,
        ]));
    }
}

/// A host that reports.
pub(crate) fn report(host: &Booting, token: &str, stage: &str, message: &str) {
    let body = format!("stage={stage}\nstate=ok\nuptime_ms=1000\nmessage={message}\n");
    let answer = host.get("/v1/boot/kvm01/events", token, &["--data-binary", &body]);
    assert!(answer.starts_with('2'), "{answer}");
}

#[test]
fn a_boot_is_followed_in_a_browser_and_nothing_from_the_wire_is_markup() {
    let Some(mut site) = site_with("page", &inventory()) else {
        return;
    };
    let operator = ok(site.lab.client("operator", "52:54:00:00:0a:01"));
    ok(operator.ip(&["addr", "add", "10.77.0.50/24", "dev", "eth0"]));
    let scratch = site.lab.dir().to_owned();
    let browser = Browser::start(&operator, &scratch);
    browser.go("/");
    let words = "[data-host=kvm01] .words";
    browser.shows(words, "not seen yet");
    browser.shows(".rack h2", "r1");
    // A page that is loaded again does not have it any more.
    browser.run("window.sameDocument = true");

    let host = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    let boot = host.boot_token();
    browser.shows(words, "script");
    let token = host.config(&boot)("report_token");
    report(&host, &token, "root", HOSTILE);
    browser.shows(words, "root");
    browser.wait(
        "the note as text",
        &format!(
            "return document.querySelector('[data-host=kvm01]').title == {}",
            json!(HOSTILE)
        ),
    );
    browser.picture(&site.logs.join("page.png"));

    // The stream ends with the daemon, which does not wait for it, and comes back with the next one.
    ok(site.daemon.signal(Signal::SIGTERM));
    ok(site.daemon.wait_exit(Duration::from_secs(8)));
    ok(site.restart());
    report(&host, &token, "online", "up again");
    browser.shows(words, "online");
    browser.wait(
        "the sign of a lost stream gone",
        "return document.querySelector('#live').hidden",
    );
    assert_eq!(
        browser.run("return window.sameDocument"),
        json!(true),
        "the page was never loaded again"
    );

    browser.go("/hosts/kvm01");
    browser.shows("h1", "kvm01");
    browser.wait(
        "its story",
        "return document.querySelector('.story').textContent.includes('onerror')",
    );
    report(&host, &token, "pool", "the pool is mounted");
    browser.wait(
        "the story goes on",
        "return document.querySelector('.story').textContent.includes('pool is mounted')",
    );
    browser.picture(&site.logs.join("host.png"));
    let title = browser.run("return document.title");
    assert_eq!(title, json!("kvm01: pool"), "markup from the wire was run");
    assert_eq!(
        browser.run("return document.images.length"),
        json!(0),
        "or drawn"
    );
    headers(&operator, &site);
}

/// What is not for hosts has its guards, also without a browser that asks for them.
fn headers(operator: &Namespace, site: &Site) {
    for path in ["/", "/hosts/kvm01", "/page/script.js", "/hosts/nobody"] {
        let url = format!("http://{APPLIANCE}{path}");
        let head = ok(operator.run(&[
            "curl",
            "-sS",
            "-m",
            "10",
            "-o",
            "/dev/null",
            "-D",
            "-",
            &url,
        ]))
        .to_lowercase();
        assert!(
            head.contains("content-security-policy: default-src 'none'"),
            "{path}: {head}"
        );
        assert!(
            head.contains("x-content-type-options: nosniff"),
            "{path}: {head}"
        );
    }
    assert!(!site.daemon.log().text().contains("cannot make the page"));
}

/// The HTTP status of a request with these further arguments of curl.
fn status(from: &Namespace, path: &str, more: &[&str]) -> String {
    let url = format!("http://{APPLIANCE}{path}");
    let fixed = [
        "curl",
        "-sS",
        "-m",
        "10",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &url,
    ];
    ok(from.run(&[&fixed, more].concat()))
}

#[test]
fn reading_can_be_closed_by_an_edit_and_hosts_boot_on() {
    let Some(site) = site("reading") else { return };
    let operator = ok(site.lab.client("operator", "52:54:00:00:0a:01"));
    ok(operator.ip(&["addr", "add", "10.77.0.50/24", "dev", "eth0"]));
    const READ: [&str; 6] = [
        "/",
        "/hosts/kvm01",
        "/v1/status",
        "/v1/hosts/kvm01/log",
        "/metrics",
        "/page/style.css",
    ];
    for path in READ {
        assert_eq!(status(&operator, path, &[]), "200", "{path}");
    }
    ok(site.edit(&INVENTORY.replace("site: test\n", "site: test\nserver: {read: token}\n")));
    ok(site.daemon.log().wait_for("reloaded:", PATIENCE));
    let file = site.lab.dir().join("state/read.token");
    let token = ok(fs::read_to_string(&file).map_err(io_error("read", &file)));
    let bearer = format!("Authorization: Bearer {}", token.trim());
    for path in READ {
        assert_eq!(status(&operator, path, &[]), "401", "{path}");
        assert_eq!(
            status(&operator, path, &["-H", "Authorization: Bearer guess"]),
            "401",
            "{path}"
        );
        assert_eq!(status(&operator, path, &["-H", &bearer]), "200", "{path}");
    }
    let user = format!("anybody:{}", token.trim());
    assert_eq!(status(&operator, "/", &["-u", &user]), "200");
    assert_eq!(status(&operator, "/v1/live", &[]), "401");
    // Who watches a port sees that it is up, hosts boot, and the operator's commands go by the socket.
    assert_eq!(status(&operator, "/healthz", &[]), "200");
    let host = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    let boot = host.boot_token();
    let report_token = host.config(&boot)("report_token");
    report(&host, &report_token, "root", "mounted");
    let said = ok(site.daemon.verb("status", &["kvm01"]));
    assert!(String::from_utf8_lossy(&said.stdout).contains("mounted"));
}

const SECURE: &str = "10.77.0.1:8443";
const SERVER: &str =
    "server: {write: token, tls: {certificate: tls.pem, key: tls.key, port: 8443}}";
/// One digit off kvm01's, and QEMU's.
const GUEST: &str = "52:54:00:00:10:01";

#[test]
fn a_machine_is_made_a_host_in_a_browser_by_who_has_the_token() {
    let Some(lab) = Lab::for_test("chair") else {
        return;
    };
    let data = ok(fake::data_dir(lab.dir()));
    write_keys(lab.dir());
    let logs = lab.dir().join("logs");
    let text = writable(SERVER, "approve").replace("kvm01: {", "kvm01: {rack: r1, unit: 3, ");
    let site = ok(Site::start(lab, &text, &data, &logs));
    for (name, mac) in [("bare", BARE), ("guest", GUEST)] {
        let stranger = Stranger::new(&site, name, mac);
        stranger.dhcp();
        stranger.script("");
        let hostile = "%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D'taken%20over'%22%3E";
        stranger.script(&format!(
            "?uuid=&serial={hostile}&manufacturer={hostile}&product=R650"
        ));
    }
    let operator = ok(site.lab.client("operator", "52:54:00:00:0a:01"));
    ok(operator.ip(&["addr", "add", "10.77.0.50/24", "dev", "eth0"]));
    let browser = Browser::start(&operator, site.lab.dir());
    let unharmed = || {
        let seen = browser.run("return [document.title.includes('taken'), document.images.length, document.querySelectorAll('script:not([src])').length]");
        assert_eq!(seen, json!([false, 0, 0]));
    };
    browser.go_to(&format!("https://{SECURE}/"));
    browser.wait(
        "two that wait",
        "return document.querySelectorAll('#waiting .stranger').length == 2",
    );
    let told = browser.text("#waiting");
    for words in [
        HOSTILE,
        "R650",
        "virtual: QEMU/KVM",
        "one digit off kvm01's",
        "a typing mistake?",
    ] {
        assert!(told.contains(words), "{words} is not in {told}");
    }
    assert_eq!(browser.run("return document.forms.length"), json!(0));
    // An edit that changes who may approve, and nothing of a machine, is on the page that is open.
    browser.run("window.sameDocument = true");
    for (policy, links) in [("hold", 0), ("approve", 2)] {
        ok(site.edit(&text.replace("policy: approve", &format!("policy: {policy}"))));
        let links = format!("return document.querySelectorAll('.act').length == {links}");
        browser.wait("what the edit allows", &links);
    }
    assert_eq!(browser.run("return window.sameDocument"), json!(true));
    unharmed();
    browser.picture(&site.logs.join("waiting.png"));

    // Who only reads gets no form.
    for at in ["https://10.77.0.1:8443", "http://10.77.0.1"] {
        let url = format!("{at}/approve/{BARE}");
        let said = ok(operator.run(&["curl", "-sSk", "-m", "10", &url]));
        assert!(!said.contains("<form"), "{said}");
    }
    let signed_in = format!(
        "https://operator:{}@{SECURE}/approve/{BARE}",
        token(&site, "write.token")
    );
    browser.go_to(&signed_in);
    browser.shows("h1", BARE);
    assert_eq!(
        browser.run("return document.forms[0].elements.name.value"),
        json!("kvm04")
    );
    assert_eq!(
        browser.run("return document.forms[0].elements.virtual === undefined"),
        json!(true)
    );
    unharmed();
    browser.fill(&[("rack", "\"><b>r1"), ("unit", "nine")]);
    assert!(
        browser
            .text("#refused")
            .contains("`nine` is no unit of a rack"),
        "{}",
        browser.text("main")
    );
    let typed = "return [...document.querySelectorAll('#rack, #unit')].map((field) => field.value)";
    assert_eq!(browser.run(typed), json!(["\"><b>r1", "nine"]));
    browser.fill(&[("name", "kvm01"), ("rack", "r1"), ("unit", "4")]);
    assert!(
        browser.text("#refused").contains("kvm01 is there already"),
        "{}",
        browser.text("main")
    );
    browser.be_a_phone();
    browser.picture(&site.logs.join("form-phone.png"));
    let wide = "return document.documentElement.scrollWidth > innerWidth";
    assert_eq!(
        browser.run(wide),
        json!(false),
        "a phone has to be scrolled aside"
    );
    browser.fill(&[("name", "kvm07")]);
    let told = browser.text("#outcome");
    assert_eq!(
        told,
        "It is kvm07: 10.77.0.14, profile kvm-host, rack r1, unit 4."
    );
    let written =
        ok(fs::read_to_string(&site.inventory).map_err(io_error("read", &site.inventory)));
    assert!(
        written.contains(&format!("kvm07: {{mac: \"{BARE}\"")),
        "{written}"
    );
    unharmed();

    // A guest needs a word more.
    browser.go_to(&format!("https://{SECURE}/approve/{GUEST}"));
    browser.fill(&[("name", "kvm08")]);
    assert!(
        browser
            .text("#refused")
            .contains("looks like a virtual machine"),
        "{}",
        browser.text("main")
    );
    browser.run("document.forms[0].elements.virtual.checked = true");
    browser.fill(&[]);
    assert!(
        browser.text("#outcome").contains("It is kvm08"),
        "{}",
        browser.text("main")
    );
    browser.go_to(&format!("https://{SECURE}/"));
    browser.wait("nobody waits", "return !document.querySelector('#waiting')");
    assert_eq!(browser.run(wide), json!(false));
    browser.picture(&site.logs.join("fleet-phone.png"));
}
