//! The examples of docs/api.md have the keys that the daemon's answers have.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::broken::get;
use crate::discover::{BARE, Stranger};
use crate::fake::INVENTORY;
use crate::host_files::{Booting, KVM01};
use crate::lab::{Site, io_error, output, repository, until};
use crate::page::report;
use crate::scribe::{PATIENCE, scribe};
use crate::{ok, site_with};

/// What is there where there is reason alone.
const OPTIONAL: [&str; 13] = [
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

/// Every key of these objects, with one value of it that says something.
fn keys(objects: &[&Value]) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    for (key, value) in objects
        .iter()
        .filter_map(|object| object.as_object())
        .flatten()
    {
        let empty = value.is_null() || *value == Value::Array(Vec::new());
        if !empty || !keys.contains_key(key) {
            keys.insert(key.clone(), value.clone());
        }
    }
    keys
}

/// Objects in both have the same keys, at any depth; where one is empty there is nothing to compare.
fn same_shape(place: &str, documented: &Value, real: &Value) {
    let objects = |value: &'_ Value| match value {
        Value::Array(items) => items.clone(),
        Value::Object(members) if !members.is_empty() => vec![value.clone()],
        _ => Vec::new(),
    };
    let (documented, real) = (objects(documented), objects(real));
    if documented.is_empty() || real.is_empty() {
        return;
    }
    let (documented, real) = (
        keys(&documented.iter().collect::<Vec<_>>()),
        keys(&real.iter().collect::<Vec<_>>()),
    );
    for (key, value) in &real {
        let known = documented.get(key);
        let known = known.unwrap_or_else(|| panic!("{place}.{key} is not documented"));
        same_shape(&format!("{place}.{key}"), known, value);
    }
    for key in documented
        .keys()
        .filter(|key| !OPTIONAL.contains(&key.as_str()))
    {
        assert!(
            real.contains_key(key),
            "{place}.{key} is documented, and not there"
        );
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

#[test]
fn the_documentations_examples_have_the_keys_that_answers_have() {
    let text = INVENTORY.replace("kvm01: {", "kvm01: {rack: r1, unit: 3, ");
    let Some(site) = site_with("api", &text) else {
        return;
    };
    let examples = examples();
    let stranger = Stranger::new(&site, "bare", BARE);
    stranger.dhcp();
    stranger.script("");
    let host = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    let boot = host.boot_token();
    let token = host.config(&boot)("report_token");
    report(&host, &token, "root", "mounted");
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
        same_shape(path, documented, &real);
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
    same_shape("POST", &examples()["POST"], &real);
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
