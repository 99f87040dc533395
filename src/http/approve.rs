//! `POST /v1/discovered/MAC/approve`, and the page's form: a machine that waits is made a host.

use std::net::Ipv4Addr;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Form, Json};
use jiff::Timestamp;

use super::page::answer;
use super::{App, Ends};
use crate::inventory::model::{MacAddr, Writing};
use crate::page::{self, Typed, Waiting};
use crate::scribe::Kind;
use crate::site::Site;
use crate::site::approval::{Approval, By, NotApproved};
use crate::site::discovery::DiscoveredStatus;

pub(super) async fn approve(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Path(mac): Path<String>,
    approval: Result<Json<Approval>, JsonRejection>,
) -> Response {
    let approval = match approval {
        Ok(Json(approval)) => approval,
        Err(bad) => return (bad.status(), format!("{}\n", bad.body_text())).into_response(),
    };
    let mac = match parse(&mac) {
        Ok(mac) => mac,
        Err(bad) => return bad.into_response(),
    };
    match app.site.approve(mac, &approval, &by(ends)).await {
        Ok(approved) => Json(approved).into_response(),
        Err(why) => {
            let mut answer = (status(&why), format!("{why}\n")).into_response();
            if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
                answer.headers_mut().insert(RETRY_AFTER, 5.into());
            }
            answer
        }
    }
}

fn parse(mac: &str) -> Result<MacAddr, (StatusCode, String)> {
    mac.parse()
        .map_err(|bad| (StatusCode::BAD_REQUEST, format!("{bad}\n")))
}

/// Machines that wait, as the page shows them.
pub(super) fn waiting(site: &Site, now: Timestamp) -> Waiting {
    let snapshot = site.snapshot();
    let writing = snapshot.inventory.server.write == Writing::Token;
    let is_open = |machine: &DiscoveredStatus| writing && site.is_open(machine);
    Waiting::new(&site.discovered(now).machines, is_open, now)
}

/// The form for a machine, or what has become of it.
pub(super) async fn form(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Path(mac): Path<String>,
) -> Response {
    let mac = match parse(&mac) {
        Ok(mac) => mac,
        Err(bad) => return bad.into_response(),
    };
    let snapshot = app.site.snapshot();
    let inventory = &snapshot.inventory;
    if inventory.by_mac.contains_key(&mac) {
        let words = "A machine that waits goes on by itself within a minute.";
        return answer(page::outcome(inventory, mac, words).map_err(|error| error.to_string()));
    }
    show(&app, ends, mac, None, None)
}

/// With what is likely meant, or again with what was typed and refused; where whoever asks may not approve the machine,
/// the command that does.
fn show(
    app: &App,
    ends: Ends,
    mac: MacAddr,
    typed: Option<&Typed>,
    refused: Option<&str>,
) -> Response {
    let (snapshot, now) = (app.site.snapshot(), Timestamp::now());
    let list = app.site.discovered(now);
    let mut machines = list.machines.iter();
    let Some(machine) = machines.find(|machine| machine.seen.mac == mac) else {
        let words = NotApproved::Unknown(mac).to_string() + "\n";
        return (StatusCode::NOT_FOUND, words).into_response();
    };
    let suggestion = Typed::suggestion(&snapshot.inventory, &machine.seen);
    let typed = typed.unwrap_or(&suggestion);
    let may = app.site.may_approve(machine, &by(ends));
    let words = may.as_ref().err().map(ToString::to_string);
    let refused = refused.or(words.as_deref());
    let page = page::form(
        &snapshot.inventory,
        machine,
        may.is_ok(),
        typed,
        refused,
        now,
    );
    answer(page.map_err(|error| error.to_string()))
}

/// The form comes back. A browser loads the outcome by itself, so that to load it again asks for nothing.
pub(super) async fn submit(
    State(app): State<App>,
    Extension(ends): Extension<Ends>,
    Path(mac): Path<String>,
    Form(typed): Form<Typed>,
) -> Response {
    let mac = match parse(&mac) {
        Ok(mac) => mac,
        Err(bad) => return bad.into_response(),
    };
    let refuse = |status, words: &str| {
        let mut again = show(&app, ends, mac, Some(&typed), Some(words));
        if again.status() == StatusCode::OK {
            *again.status_mut() = status;
        }
        again
    };
    let approval = match approval(&typed) {
        Ok(approval) => approval,
        Err(words) => return refuse(StatusCode::UNPROCESSABLE_ENTITY, &words),
    };
    match app.site.approve(mac, &approval, &by(ends)).await {
        Ok(approved) if approved.served => Redirect::to(&format!("/approve/{mac}")).into_response(),
        Ok(approved) => {
            let file = approved.done.file;
            let words = format!(
                "{file} is written, and the daemon does not serve it yet: the first page says whether the edit was refused."
            );
            let inventory = &app.site.snapshot().inventory;
            answer(page::outcome(inventory, mac, &words).map_err(|error| error.to_string()))
        }
        Err(why) => refuse(status(&why), &why.to_string()),
    }
}

fn approval(typed: &Typed) -> Result<Approval, String> {
    let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let ip = text(&typed.ip).map(|ip| {
        let address = ip.parse::<Ipv4Addr>();
        address.map_err(|_| {
            format!("`{ip}` is no IPv4 address: write it like 10.77.0.17, or leave it empty")
        })
    });
    let unit = text(&typed.unit).map(|unit| {
        let number = unit.parse::<u16>();
        number.map_err(|_| {
            format!("`{unit}` is no unit of a rack: write a number, or leave it empty")
        })
    });
    Ok(Approval {
        name: typed.name.trim().to_owned(),
        profile: text(&typed.profile),
        ip: ip.transpose()?,
        rack: text(&typed.rack),
        unit: unit.transpose()?,
        r#virtual: !typed.r#virtual.is_empty(),
        dry_run: false,
    })
}

/// Who does it, as far as we know.
pub(super) fn by(ends: Ends) -> By {
    let way = |peer, sealed| match sealed {
        true => format!("by HTTPS from {peer}"),
        false => format!("on the server itself ({peer})"),
    };
    match ends {
        Ends::Local => By::Socket,
        Ends::Network { peer, sealed, .. } => By::Network(way(peer, sealed)),
    }
}

pub(super) fn status(why: &NotApproved) -> StatusCode {
    match why {
        NotApproved::Unknown(_) => StatusCode::NOT_FOUND,
        NotApproved::Policy { .. } => StatusCode::FORBIDDEN,
        NotApproved::Virtual { .. } | NotApproved::Unfit(_) => StatusCode::CONFLICT,
        NotApproved::Refused(refusal) => match refusal.kind {
            Kind::Unfit => StatusCode::CONFLICT,
            Kind::Faulty => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Unwritable => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Busy | Kind::Gone => StatusCode::SERVICE_UNAVAILABLE,
        },
    }
}
