//! The page of the site: racks, hosts and the stories of their boots, as HTML.
//!
//! It is made whole here, of the same values that `status --json` prints, and can be read without its script, which
//! only keeps it as it is now. The template engine escapes every value: names, messages and console text come from
//! the wire.

mod card;
mod fleet;
mod host;
mod waiting;

use std::sync::LazyLock;

use tera::{Context, Tera};

pub use card::Card;
pub use fleet::{fleet, warnings};
pub use host::host;
pub use waiting::{Typed, Waiting, form, outcome};

/// The style sheet.
pub const STYLE: &str = include_str!("page.css");
/// The script.
pub const SCRIPT: &str = include_str!("page.js");
/// The icon.
pub const ICON: &str = include_str!("icon.svg");

/// What a browser may do with the page: load what comes from here, and nothing else (CSP level 3).
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                          connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

static TEMPLATES: LazyLock<Result<Tera, tera::Error>> = LazyLock::new(|| {
    let mut tera = Tera::default();
    tera.autoescape_on(vec![".html"]);
    tera.add_raw_templates([
        ("base.html", include_str!("base.html")),
        ("row.html", include_str!("row.html")),
        ("card.html", include_str!("card.html")),
        ("rows.html", include_str!("rows.html")),
        ("waiting.html", include_str!("waiting.html")),
        ("approve.html", include_str!("approve.html")),
        ("approved.html", include_str!("approved.html")),
        ("fleet.html", include_str!("fleet.html")),
        ("host.html", include_str!("host.html")),
    ])?;
    Ok(tera)
});

/// A page can't be made: a fault of ours, as its templates are built in.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the page {name}: {report}")]
pub struct PageError {
    name: &'static str,
    report: String,
}

fn render(name: &'static str, view: &impl serde::Serialize) -> Result<String, PageError> {
    let fault = |error: &tera::Error| PageError {
        name,
        report: error.to_string(),
    };
    let tera = TEMPLATES.as_ref().map_err(fault)?;
    let values = Context::from_serialize(view).map_err(|error| fault(&error))?;
    tera.render(name, &values).map_err(|error| fault(&error))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::policy::event::{AttemptId, BootEvent, MachineId, Stage, StageState};
    use crate::site::report::{AttemptLog, FleetStatus, HostLog, MachineStatus};
    use crate::site::why::Why;
    use crate::timeline::SyslogLine;

    /// What a hostile machine would like to have in the page.
    const HOSTILE: &str = r#"<script>alert(1)</script>"' onmouseover=x {{ site }}"#;

    pub(super) fn machine(
        host: &str,
        stage: Option<&str>,
        state: &str,
        note: &str,
    ) -> MachineStatus {
        MachineStatus {
            host: host.to_owned(),
            stage: stage.map(str::to_owned),
            state: state.to_owned(),
            since: Some(Timestamp::UNIX_EPOCH),
            for_s: Some(92),
            heard: None,
            connected: false,
            attempt: None,
            entry: None,
            deadline: None,
            edit_waits: false,
            stays: false,
            note: note.to_owned(),
            rack: None,
            unit: None,
            stages: Vec::new(),
        }
    }

    fn racked(mut host: MachineStatus, rack: &str, unit: Option<u16>) -> MachineStatus {
        host.rack = Some(rack.to_owned());
        host.unit = unit;
        host
    }

    fn fleet_of(hosts: Vec<MachineStatus>, unknown: Vec<MachineStatus>) -> FleetStatus {
        FleetStatus {
            troubles: Vec::new(),
            schema: 1,
            site: "lab".to_owned(),
            refused_edit: None,
            hosts,
            unknown,
            suppressed: 0,
            transfers: Default::default(),
            dhcp_servers: Vec::new(),
        }
    }

    fn page(status: &FleetStatus) -> String {
        fleet(status, Waiting::default(), "e-1", Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn racks_are_drawn_from_the_top_down_and_no_mistake_makes_them_endless() {
        let joined = |name| machine(name, Some("joined"), "done", "br0 up");
        let html = page(&fleet_of(
            vec![
                racked(joined("kvm01"), "r1", Some(1)),
                racked(joined("kvm12"), "r1", Some(12)),
                racked(joined("kvm-lost"), "r1", Some(65_535)),
                racked(joined("twin-a"), "r2", Some(3)),
                racked(joined("twin-b"), "r2", Some(3)),
                joined("loose"),
            ],
            Vec::new(),
        ));
        let at = |text: &str| {
            html.find(text)
                .unwrap_or_else(|| panic!("no {text} in {html}"))
        };
        assert!(at("/hosts/kvm12") < at("/hosts/kvm01"));
        assert!(
            at("/hosts/kvm01") < at("/hosts/kvm-lost"),
            "it is shown, apart"
        );
        assert_eq!(html.matches("<span class=\"unit\">").count(), 12 + 8);
        assert!(at("/hosts/twin-a") < at("/hosts/twin-b"));
        assert!(
            html.contains("In no rack") && html.contains("<b>6</b> joined"),
            "{html}"
        );
        assert!(!html.contains("Needs a look"));
    }

    #[test]
    fn what_needs_a_look_comes_first_and_says_why_in_words() {
        let mut status = fleet_of(
            vec![
                machine("kvm01", None, "unseen", ""),
                machine("kvm02", Some("loader"), "stalled", "no script asked for"),
            ],
            vec![machine(
                "mac-525400000009",
                Some("script"),
                "running",
                "held",
            )],
        );
        status.refused_edit = Some("hosts.yaml:3: no such key".to_owned());
        let html = page(&status);
        let at = |text: &str| {
            html.find(text)
                .unwrap_or_else(|| panic!("no {text} in {html}"))
        };
        assert!(at("is not served") < at("Needs a look"));
        assert!(at("stalled: loader") < at("not seen yet</span></td>"));
        assert!(at("1m32s") > 0 && at("no script asked for") > 0);
        assert!(at("Not listed") < at("mac-525400000009"));
    }

    #[test]
    fn nothing_from_the_wire_is_markup() {
        let hostile = || machine(HOSTILE, Some("dhcp"), "failed", HOSTILE);
        let mut status = fleet_of(
            vec![hostile(), racked(hostile(), HOSTILE, Some(1))],
            vec![hostile()],
        );
        status.refused_edit = Some(HOSTILE.to_owned());
        let mut event = BootEvent::sent(
            Timestamp::UNIX_EPOCH,
            MachineId(HOSTILE.to_owned()),
            Stage::Dhcp,
            StageState::Fail,
            HOSTILE.to_owned(),
        );
        event.begins = Some(AttemptId("a".to_owned()));
        let log = HostLog {
            schema: 1,
            host: HOSTILE.to_owned(),
            strays: vec![event.clone()],
            attempts: vec![AttemptLog {
                attempt: HOSTILE.to_owned(),
                began: Timestamp::UNIX_EPOCH,
                events: vec![event],
                syslog: vec![SyslogLine {
                    at: Timestamp::UNIX_EPOCH,
                    severity: 6,
                    text: HOSTILE.to_owned(),
                }],
            }],
            console: HOSTILE.to_owned(),
        };
        let why: Why = serde_json::from_value(serde_json::json!({
            "schema": 1, "host": HOSTILE, "state": "failed", "stage": null, "for_s": null, "attempt": null, "last": [],
            "cause": format!("{HOSTILE}, likely"), "next": [HOSTILE], "hints": [],
        }))
        .unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let story = host(HOSTILE, &hostile(), &log, Some(&why), HOSTILE, now).unwrap();
        assert!(story.contains("likely</p>") && story.contains("<li>&lt;script"));
        for html in [page(&status), story] {
            assert!(!html.contains("<script>alert"), "{html}");
            assert!(!html.contains("\"' onmouseover"), "{html}");
            assert!(html.contains("&lt;script&gt;alert"), "{html}");
        }
    }

    #[test]
    fn the_page_brings_no_code_or_style_of_its_own() {
        let status = fleet_of(vec![machine("kvm01", None, "unseen", "")], Vec::new());
        let html = page(&status);
        for forbidden in [
            " style=",
            " onclick=",
            "<style",
            "javascript:",
            "http://",
            "https://",
        ] {
            assert!(!html.contains(forbidden), "{forbidden} in {html}");
        }
        assert!(SCRIPT.lines().count() < 100, "one small script");
        assert!(!SCRIPT.contains("innerHTML") && !SCRIPT.contains("eval("));
    }
}
