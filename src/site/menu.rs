//! Boot menus: what of them a loader is sent, and what its asking says of the machine.

use std::fmt::Write;
use std::net::Ipv4Addr;

use jiff::Timestamp;

use super::boot::{BootRequest, Denied, kernel_links, words};
use super::{Site, Snapshot};
use crate::inventory::model::{Boots, Menu, MenuEntry, Sourced};
use crate::policy::client::Client;
use crate::policy::event::{BootEvent, Choice, MachineId, Stage, StageState};
use crate::render::{
    BootContext, ConfigKind, EntryContext, LocalContext, MenuContext, RenderError, SerialContext,
    Templates,
};

/// A config for a loader, and what its delivery tells the timeline.
#[derive(Debug)]
pub struct LoaderConfig {
    /// The text.
    pub text: String,
    stage: Stage,
    /// What the machine did to get it; may be empty.
    story: String,
    choice: Option<Choice>,
}

impl LoaderConfig {
    /// One that boots, or waits.
    pub(super) fn script(text: String) -> Self {
        Self {
            text,
            stage: Stage::Script,
            story: String::new(),
            choice: None,
        }
    }

    /// The same, with what it is for.
    pub(super) fn with_story(mut self, story: &str) -> Self {
        self.story = story.to_owned();
        self
    }
}

impl Site {
    /// Tells the timeline that `peer` was sent a config; `by` is how, after a blank, or nothing.
    pub fn config_sent(&self, kind: ConfigKind, peer: Ipv4Addr, config: &LoaderConfig, by: &str) {
        let now = Timestamp::now();
        let machine = self
            .machine_at(peer)
            .map_or_else(MachineId::wire, |found| found.id);
        let message = format!("{}{kind} sent to {peer}{by}", config.story);
        // PXELINUX reads its config once to find the menu program, which reads it again.
        if config.stage == Stage::Menu && self.timeline.is_at(&machine, Stage::Menu, &message) {
            return;
        }
        let mut event = BootEvent::sent(now, machine, config.stage, StageState::Ok, message);
        event.choice = config.choice.clone();
        self.timeline.record(event);
    }

    /// Whether the client is firmware on its way to the local disk that its host took out of the menu.
    pub fn leaves_for_disk(&self, snapshot: &Snapshot, client: &Client, now: Timestamp) -> bool {
        let host = snapshot.inventory.by_mac.get(&client.mac);
        let with_menu = host.filter(|host| client.boots() && host.profile.menu.is_some());
        with_menu.is_some_and(|host| {
            let id = MachineId(host.name.clone());
            self.timeline.read(|machines| {
                let machine = machines.get(&id);
                machine.is_some_and(|m| m.leaves_for_disk(client.mac, client.asker, now))
            })
        })
    }
}

/// What a host with a menu is sent: the menu, or what an entry of it boots.
pub(super) fn config(
    snapshot: &Snapshot,
    request: &BootRequest<'_>,
    menu: &Menu,
    entry: Option<&str>,
) -> Result<LoaderConfig, Denied> {
    let at_once = menu.timeout.is_some_and(|timeout| timeout.is_zero());
    let wanted = entry.or_else(|| at_once.then_some(menu.default.as_str()));
    let Some(name) = wanted else {
        return Ok(shown(snapshot, request, menu)?);
    };
    let entry = menu.entry(name).ok_or_else(|| Denied::NoEntry {
        machine: request.host.name.clone(),
        entry: name.to_owned(),
    })?;
    let text = boots(&snapshot.templates, request, menu, entry)?;
    let stage = match entry.boots {
        Boots::LocalDisk => Stage::LocalDisk,
        Boots::Profile(_) | Boots::Kernel { .. } => Stage::Script,
    };
    Ok(LoaderConfig {
        text,
        stage,
        story: story(menu, entry),
        choice: Some(Choice {
            entry: name.to_owned(),
            reports: entry.reports(),
        }),
    })
}

fn story(menu: &Menu, entry: &MenuEntry) -> String {
    let name = &entry.name;
    let mut story = if *name == menu.default {
        format!("took {name}, the menu's default")
    } else {
        format!("chose {name} in the menu")
    };
    // Writing to a String does not fail.
    let _ = match &entry.boots {
        Boots::LocalDisk => write!(story, ", its local disk: "),
        Boots::Kernel { kernel, .. } => write!(story, ", kernel {} alone: ", **kernel),
        Boots::Profile(_) => write!(story, ": "),
    };
    story
}

fn shown(
    snapshot: &Snapshot,
    request: &BootRequest<'_>,
    menu: &Menu,
) -> Result<LoaderConfig, RenderError> {
    let context = menu_context(request, menu);
    let text = snapshot.templates.menu_config(request.kind, &context)?;
    let story = match context.timeout {
        Some(seconds) => format!(
            "menu, {} in {seconds} s unless a key is pressed: ",
            menu.default
        ),
        None => "menu, which waits for a choice: ".to_owned(),
    };
    Ok(LoaderConfig {
        text,
        stage: Stage::Menu,
        story,
        choice: None,
    })
}

fn menu_context(request: &BootRequest<'_>, menu: &Menu) -> MenuContext {
    let BootContext {
        site,
        machine,
        mac,
        bootif,
        attempt,
        server,
        ..
    } = request.context(request.host);
    let entry = |(index, entry): (usize, &MenuEntry)| {
        let name = &entry.name;
        EntryContext {
            key: index + 1,
            label: entry.label.clone(),
            url: format!("{}/boot/{mac}/menu/{name}/script.ipxe", server.url),
            path: format!("pxelinux.cfg/{bootif}/{name}"),
            grub: format!("(tftp,{})/grub/menu/{name}.cfg", server.address),
            name: name.clone(),
        }
    };
    let title = || format!("Bridgehead {site}: {machine}");
    MenuContext {
        title: menu.title.clone().unwrap_or_else(title),
        timeout: menu.timeout.map(|timeout| timeout.as_secs()),
        default: menu.default.clone(),
        entries: menu.entries.iter().enumerate().map(entry).collect(),
        serial: serial(request, menu),
        site,
        machine,
        mac,
        bootif,
        attempt,
        server,
    }
}

/// The line of the kernel's console, where the loader is to drive it.
fn serial(request: &BootRequest<'_>, menu: &Menu) -> Option<SerialContext> {
    let arguments = request.host.profile.cmdline.iter();
    SerialContext::of(arguments.map(|at| at.value.as_str())).filter(|_| menu.serial)
}

fn boots(
    templates: &Templates,
    request: &BootRequest<'_>,
    menu: &Menu,
    entry: &MenuEntry,
) -> Result<String, RenderError> {
    let serial = serial(request, menu);
    let context = match &entry.boots {
        Boots::LocalDisk => {
            let context = local_context(request, serial);
            return templates.local_config(request.kind, &context);
        }
        Boots::Profile(profile) => request.context(&request.host.with_profile(profile)),
        Boots::Kernel { kernel, cmdline } => bare_context(request, kernel, cmdline),
    };
    templates.boot_config(request.kind, &BootContext { serial, ..context })
}

fn local_context(request: &BootRequest<'_>, serial: Option<SerialContext>) -> LocalContext {
    let context = request.context(request.host);
    LocalContext {
        site: context.site,
        machine: context.machine,
        attempt: context.attempt,
        server: context.server,
        serial,
    }
}

fn bare_context(
    request: &BootRequest<'_>,
    kernel: &str,
    cmdline: &[Sourced<String>],
) -> BootContext {
    let context = request.context(request.host);
    BootContext {
        kernel: kernel_links(kernel, &context.server),
        initrd: None,
        arguments: words(cmdline),
        ..context
    }
}

/// Renders a host's menu and every entry of it as if it asked now, and returns what went wrong.
pub(super) fn rehearse(templates: &Templates, request: &BootRequest<'_>) -> Vec<RenderError> {
    let Some(menu) = &request.host.profile.menu else {
        return Vec::new();
    };
    let shown = templates.menu_config(request.kind, &menu_context(request, menu));
    let entries = menu.entries.iter();
    let entries = entries.map(|entry| boots(templates, request, menu, entry));
    std::iter::once(shown)
        .chain(entries)
        .filter_map(Result::err)
        .collect()
}
