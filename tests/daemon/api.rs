//! The examples of docs/api.md have the keys that the daemon's answers have.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::broken::get;
use crate::clients::{Program, lease};
use crate::discover::{BARE, Stranger};
use crate::fake::INVENTORY;
use crate::host_files::{Booting, KVM01};
use crate::inventory_boot::{REPORT, word};
use crate::lab::{Site, io_error, output, repository, until};
use crate::page::report;
use crate::scribe::{PATIENCE, scribe};
use crate::syslog::{TIMED_OUT, send, wait_for};
use crate::{ok, site_with};

/// What is there where there is reason alone.
const OPTIONAL: [&str; 15] = [
    "deadline",
    "said",
    "entry",
    "edit_waits",
    "stays",
    "hardware",
    "mac",
    "begins",
    "begun_by",
    "choice",
    "attempt",
    "uptime_ms",
    "hint",
    "restored",
    "connected",
];

/// Examples of what none of these tests makes.
const NOT_MADE: [&str; 5] = [
    "/v1/status.troubles",
    "/v1/status.dhcp_servers",
    "/v1/discovered.machines.relay",
    "/v1/discovered.machines.port",
    "/v1/inventory.offered",
];

/// The examples by what stands behind their `json`.
fn examples() -> BTreeMap<String, Value> {
    let path = repository().join("docs/api.md");
    let text = ok(fs::read_to_string(&path).map_err(io_error("read", &path)));
    let blocks = text.split("\n```json ").skip(1);
    let example = |block: &str| {
        let (info, rest) = block.split_once('\n').unwrap_or_default();
        let json = rest.split("\n```").next().unwrap_or_default();
        let value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{info}: {error}"));
        (info.to_owned(), value)
    };
    blocks.map(example).collect()
}

/// An example or an answer that says nothing of its shape.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// What stands at one place, of all the items of the lists above it; an item of a list at it counts for itself.
fn items<'v>(values: &[&'v Value]) -> Vec<&'v Value> {
    let mut items = Vec::new();
    for value in values.iter().filter(|value| !is_empty(value)) {
        match value {
            Value::Array(list) => items.extend(list.iter().filter(|item| !is_empty(item))),
            value => items.push(*value),
        }
    }
    items
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The values of objects by their key. In the inventory's answer names and keys are the file's own.
fn members<'v>(place: &str, objects: &[&'v Value]) -> BTreeMap<String, Vec<&'v Value>> {
    let mut members: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    let all = objects.iter().filter_map(|object| object.as_object());
    for (key, value) in all.flatten() {
        let key = match place.starts_with("/v1/inventory.") {
            true => "*",
            false => key,
        };
        members.entry(key.to_owned()).or_default().push(value);
    }
    members
}

/// Both have the same keys with values of the same kinds, at any depth. What is there has an example that is not
/// empty, and what the example shows was there to compare, but for what no test here makes.
fn same_shape(place: &str, documented: &[&Value], real: &[&Value]) {
    let (documented, real) = (items(documented), items(real));
    if let ([], [first, ..]) = (&documented[..], &real[..]) {
        panic!("{place}: the example is empty, and there is {first}");
    }
    if real.is_empty() {
        let compared = documented.is_empty() || NOT_MADE.contains(&place);
        assert!(compared, "{place}: nothing of it came");
        return;
    }
    for value in &real {
        let known = documented.iter().any(|known| kind(known) == kind(value));
        assert!(known, "{place}: {value} is not of the documented kind");
    }
    let (documented, real) = (members(place, &documented), members(place, &real));
    for (key, values) in &real {
        let known = documented.get(key);
        let known = known.unwrap_or_else(|| panic!("{place}.{key} is not documented"));
        same_shape(&format!("{place}.{key}"), known, values);
    }
    let needed = |key: &&String| !OPTIONAL.contains(&key.as_str());
    for key in documented.keys().filter(needed) {
        let there = real.contains_key(key);
        assert!(there, "{place}.{key} is documented, and not there");
    }
}

fn socket(site: &Site) -> String {
    let socket = site.lab.dir().join("state/bridgehead.sock");
    socket.display().to_string()
}

fn post(site: &Site, path: &str, body: &str) -> Value {
    let socket = socket(site);
    let url = format!("http://localhost{path}");
    let json = "Content-Type: application/json";
    let argv = [
        "curl",
        "-s",
        "-m",
        "40",
        "--unix-socket",
        &socket,
        "-H",
        json,
        "-d",
        body,
        &url,
    ];
    let said = ok(output(&argv)).stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The data of the first event of `hosts`, while `work` makes one.
fn live(site: &Site, work: impl FnOnce()) -> Value {
    let page = get(site, "/");
    let version = page
        .split("data-version=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let path = format!(
        "http://localhost/v1/live?since={}",
        version.unwrap_or_default()
    );
    let socket = socket(site);
    let said = thread::scope(|scope| {
        let watching =
            scope.spawn(|| output(&["curl", "-sN", "-m", "5", "--unix-socket", &socket, &path]));
        work();
        watching.join()
    });
    let said = ok(said.unwrap_or_else(|_| panic!("curl"))).stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    let event = said
        .split("event: hosts\n")
        .nth(1)
        .and_then(|rest| rest.split("data: ").nth(1));
    let data = event.and_then(|rest| rest.lines().next());
    serde_json::from_str(data.unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn inventory() -> String {
    let racks = INVENTORY.replace("kvm01: {", "kvm01: {rack: r1, unit: 3, ");
    let inventory = racks.replace("{policy: hold}", "{policy: hold, inventory: kvm-host}");
    format!("server: {{syslog: 514}}\n{inventory}")
}

#[test]
fn the_documentations_examples_have_the_keys_that_answers_have() {
    let Some(site) = site_with("api", &inventory()) else {
        return;
    };
    let examples = examples();
    let stranger = Stranger::new(&site, "bare", BARE);
    stranger.dhcp();
    let script = stranger.script("");
    let shown = word(&script, "bridgehead.token");
    let waits =
        "stage=inventory\nstate=ok\nuptime_ms=8770\nmessage=not listed: waits for its name\n";
    assert_eq!(stranger.post("events", shown, waits), "200");
    assert_eq!(stranger.post("inventory", shown, REPORT), "204");
    // A guest, and one digit off kvm02 and kvm03.
    let near = Stranger::new(&site, "near", "52:54:00:00:00:09");
    near.dhcp();
    let host = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    // An operating system's lease is outside of any boot.
    ok(lease(
        Program::Udhcpc,
        &host.namespace,
        site.lab.dir(),
        None,
    ));
    ok(host
        .namespace
        .ip(&["addr", "replace", "10.77.0.11/24", "dev", "eth0"]));
    let boot = host.boot_token();
    send(&host.namespace, &[TIMED_OUT.as_bytes()]);
    wait_for("Connection timed out", || get(&site, "/v1/hosts/kvm01/why"));
    let token = host.config(&boot)("report_token");
    report(&host, &token, "root", "mounted");
    let body = "stage=root\nstate=fail\nmessage=ls: stale file handle\nuptime_ms=1200\n";
    let posted = host.get("/v1/boot/kvm01/events", &token, &["--data-binary", body]);
    assert_eq!(posted, "200");
    let last = ["--data-binary", "nfs: stale file handle\n"];
    let posted = host.get("/v1/boot/kvm01/log", &token, &last);
    assert!(posted.starts_with('2'), "{posted}");
    let other = Booting::new(&site, "kvm02", "52:54:00:00:00:02", "10.77.0.12");
    other.boot_token();
    let mut asked = 0;
    for (path, documented) in examples.iter().filter(|(path, _)| path.starts_with('/')) {
        asked += 1;
        let real = match path.as_str() {
            "/v1/live" => live(&site, || report(&host, &token, "online", "up")),
            "/readyz?format=json" => {
                kill(scribe(&site), Signal::SIGKILL).unwrap_or_else(|error| panic!("{error}"));
                let gone = || Ok(get(&site, "/readyz").contains("scribe").then_some(()));
                ok(until("its end", PATIENCE, gone, || {
                    site.daemon.log().tail(9)
                }));
                serde_json::from_str(&get(&site, path)).unwrap_or_default()
            }
            path => {
                let said = get(&site, path);
                serde_json::from_str(&said)
                    .unwrap_or_else(|error| panic!("{path}: {error}: {said}"))
            }
        };
        assert!(!real.is_null(), "{path}");
        same_shape(path, &[documented], &[&real]);
    }
    assert_eq!(asked, 7);
}

#[test]
fn the_documented_answer_to_an_approval_is_the_one_that_comes() {
    let Some(site) = site_with("apipost", INVENTORY) else {
        return;
    };
    Stranger::new(&site, "bare", BARE).dhcp();
    let body = r#"{"name": "kvm07", "profile": "kvm-host", "rack": "r1", "unit": 9}"#;
    let real = post(&site, &format!("/v1/discovered/{BARE}/approve"), body);
    same_shape("POST", &[&examples()["POST"]], &[&real]);
    assert_eq!(real["host"], "kvm07");
}

#[test]
fn every_route_of_the_api_is_documented() {
    let read = |path: &str| {
        let path = repository().join(path);
        ok(fs::read_to_string(&path).map_err(io_error("read", &path)))
    };
    let (code, docs) = (
        read("src/http/mod.rs") + &read("src/http/page.rs"),
        read("docs/api.md"),
    );
    let routes = code
        .split("\"/v1/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let routes = routes.filter(|route| !route.starts_with("boot/"));
    let routes: Vec<_> = routes
        .map(|route| route.replace("{host}", "HOST").replace("{mac}", "MAC"))
        .collect();
    assert!(routes.len() > 5);
    for route in routes {
        assert!(docs.contains(&format!(" /v1/{route}`")), "/v1/{route}");
    }
}
