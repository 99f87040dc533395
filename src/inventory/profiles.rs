//! Profiles: who extends whom, and what comes of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::faults::Faults;
use super::menu_settings::Base;
use super::model::Profile;
use super::settings::Settings;
use super::suggest::{did_you_mean, quote};
use super::tree::{At, Span};
use super::written::WrittenProfile;
use crate::diagnostic::Diagnostic;

/// Profiles in one chain. Nobody can follow more, and a bound keeps a hostile file cheap.
const MAX_CHAIN: usize = 16;

/// Profiles by name, each with all that it inherits.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    resolved: HashMap<String, Resolved>,
}

/// One profile with its parents' settings below its own.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) span: Span,
    pub(super) extends: Vec<String>,
    pub(super) settings: Settings,
    /// `None` while a required key is missing: then only hosts that add it can use it.
    pub(super) complete: Option<Arc<Profile>>,
    is_parent: bool,
}

impl Profiles {
    pub(super) fn get(&self, name: &str) -> Option<&Resolved> {
        self.resolved.get(name)
    }

    /// Help for a name that is not there.
    pub(super) fn help_for(&self, name: &str) -> String {
        let mut names: Vec<_> = self.resolved.keys().map(String::as_str).collect();
        names.sort_unstable();
        did_you_mean(name, names)
    }

    /// Those that can be booted as they stand.
    pub(super) fn complete(&self) -> BTreeMap<String, Arc<Profile>> {
        let complete = |(name, resolved): (&String, &Resolved)| {
            Some((name.clone(), resolved.complete.clone()?))
        };
        self.resolved.iter().filter_map(complete).collect()
    }

    /// Menus come last: their entries build on other profiles.
    fn add_menu(&mut self, name: &str, faults: &mut Faults) {
        let Some(resolved) = self.resolved.get(name) else {
            return;
        };
        let Some(profile) = &resolved.complete else {
            return;
        };
        let base = Base {
            settings: &resolved.settings,
            host: None,
            name,
            extends: &resolved.extends,
        };
        let Some(menu) = base.menu(self, faults) else {
            return;
        };
        let with_menu = Profile {
            menu: Some(menu),
            ..Profile::clone(profile)
        };
        if let Some(resolved) = self.resolved.get_mut(name) {
            resolved.complete = Some(Arc::new(with_menu));
        }
    }

    /// A profile that nobody uses, extends or could boot is probably a slip.
    pub(super) fn warn_unused(&self, used: &HashSet<&str>, faults: &mut Faults) {
        for (name, resolved) in &self.resolved {
            let settings = &resolved.settings;
            let idle = !resolved.is_parent && !used.contains(name.as_str());
            if !idle || settings.broken || resolved.complete.is_some() {
                continue;
            }
            let message = format!(
                "profile {name} is not used, and could not be: it has no {}",
                keys(&settings.missing())
            );
            let warning = Diagnostic::warning("inventory::incomplete_profile", message)
                .with_label(faults.primary(resolved.span, ""))
                .with_help("add what is missing, or remove the profile");
            faults.push(warning);
        }
    }
}

/// `` `kernel` and `root` ``.
pub(super) fn keys(keys: &[&str]) -> String {
    let quoted: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    quoted.join(" and no ")
}

/// Resolves every profile; a chain that is broken or a cycle is reported once.
pub(super) fn build(written: &[WrittenProfile], faults: &mut Faults) -> Profiles {
    let by_name: HashMap<&str, &WrittenProfile> = written
        .iter()
        .map(|profile| (profile.name.value.as_str(), profile))
        .collect();
    report_unknown_parents(written, &by_name, faults);
    let circular = report_cycles(written, &by_name, faults);
    let parents: HashSet<&str> = written
        .iter()
        .filter_map(|profile| profile.extends.as_ref())
        .map(|at| at.value.as_str())
        .collect();
    let resolve = |profile: &WrittenProfile| {
        let name = profile.name.value.as_str();
        let is_circular = circular.contains(name);
        if !is_circular {
            report_long_chain(profile, &by_name, faults);
        }
        let mut resolved = resolve(profile, &by_name, is_circular);
        resolved.is_parent = parents.contains(name);
        (name.to_owned(), resolved)
    };
    let resolved: Vec<_> = written.iter().map(resolve).collect();
    for (_, resolved) in &resolved {
        if resolved.complete.is_some() {
            resolved.settings.report_stack(faults);
        }
    }
    let mut profiles = Profiles {
        resolved: resolved.into_iter().collect(),
    };
    for written in written {
        profiles.add_menu(&written.name.value, faults);
    }
    profiles
}

type ByName<'w> = HashMap<&'w str, &'w WrittenProfile>;

fn parent<'w>(profile: &WrittenProfile, by_name: &ByName<'w>) -> Option<&'w WrittenProfile> {
    let extends = profile.extends.as_ref()?;
    by_name.get(extends.value.as_str()).copied()
}

fn resolve(profile: &WrittenProfile, by_name: &ByName<'_>, circular: bool) -> Resolved {
    let mut settings = profile.settings.clone();
    let mut extends = Vec::new();
    // One more than allowed tells a chain that is too long.
    for ancestor in successors(profile, by_name).skip(1).take(MAX_CHAIN + 1) {
        settings = settings.over(&ancestor.settings);
        extends.push(ancestor.name.value.clone());
    }
    // A parent that is not there may have brought what is missing.
    settings.broken |= circular || extends.len() > MAX_CHAIN || ends_nowhere(profile, by_name);
    let complete = settings.profile(&profile.name.value, &extends);
    Resolved {
        span: profile.name.span,
        complete: complete.filter(|_| !settings.broken).map(Arc::new),
        extends,
        settings,
        is_parent: false,
    }
}

fn ends_nowhere(profile: &WrittenProfile, by_name: &ByName<'_>) -> bool {
    let mut last = profile;
    for _ in 0..=MAX_CHAIN {
        match parent(last, by_name) {
            Some(next) => last = next,
            None => return last.extends.is_some(),
        }
    }
    true
}

/// Reports the first profile of a chain that is too long; those that extend it are silent.
fn report_long_chain(profile: &WrittenProfile, by_name: &ByName<'_>, faults: &mut Faults) {
    let ancestors = successors(profile, by_name).skip(1);
    if ancestors.take(MAX_CHAIN + 2).count() != MAX_CHAIN + 1 {
        return;
    }
    if let Some(extends) = &profile.extends {
        let message = format!("more than {MAX_CHAIN} profiles extend each other here");
        let help = "merge some of them";
        faults.error("inventory::long_chain", extends.span, message, "", help);
    }
}

fn successors<'w>(
    profile: &'w WrittenProfile,
    by_name: &ByName<'w>,
) -> impl Iterator<Item = &'w WrittenProfile> {
    std::iter::successors(Some(profile), |profile| parent(profile, by_name))
}

fn report_unknown_parents(written: &[WrittenProfile], by_name: &ByName<'_>, faults: &mut Faults) {
    for profile in written {
        let Some(extends) = &profile.extends else {
            continue;
        };
        if by_name.contains_key(extends.value.as_str()) {
            continue;
        }
        let mut names: Vec<_> = by_name.keys().copied().collect();
        names.retain(|name| *name != profile.name.value);
        names.sort_unstable();
        let message = format!(
            "profile {} extends {}, which is not defined",
            profile.name.value,
            quote(&extends.value)
        );
        let help = did_you_mean(&extends.value, names);
        faults.error(
            "inventory::unknown_profile",
            extends.span,
            message,
            "",
            help,
        );
        if faults.is_full() {
            return;
        }
    }
}

/// Follows each chain once: a profile met again on the same walk closes a cycle.
///
/// Returns the profiles whose chain ends in a cycle.
fn report_cycles<'w>(
    written: &'w [WrittenProfile],
    by_name: &ByName<'w>,
    faults: &mut Faults,
) -> HashSet<&'w str> {
    let mut walk_of: HashMap<&str, usize> = HashMap::new();
    let mut circular = HashSet::new();
    for (walk, start) in written.iter().enumerate() {
        let mut path = Vec::new();
        for profile in successors(start, by_name) {
            let name = profile.name.value.as_str();
            if let Some(earlier) = walk_of.get(name) {
                if *earlier == walk {
                    report_cycle(profile, by_name, faults);
                    circular.insert(name);
                }
                if circular.contains(name) {
                    circular.extend(path);
                }
                break;
            }
            walk_of.insert(name, walk);
            path.push(name);
        }
    }
    circular
}

fn report_cycle(start: &WrittenProfile, by_name: &ByName<'_>, faults: &mut Faults) {
    let others = successors(start, by_name).skip(1);
    let cycle: Vec<_> = others
        .take_while(|profile| profile.name.value != start.name.value)
        .collect();
    let names = std::iter::once(start).chain(cycle.iter().copied());
    let mut path: Vec<_> = names
        .map(|profile| profile.name.value.as_str())
        .take(8)
        .collect();
    path.push(if cycle.len() < 8 {
        &start.name.value
    } else {
        "..."
    });
    let mut fault = Diagnostic::error(
        "inventory::profile_cycle",
        format!(
            "profiles extend each other in a circle: {}",
            path.join(" -> ")
        ),
    )
    .with_help("remove one `extends`: a chain must end at a profile that extends none");
    let links = std::iter::once(start).chain(cycle.iter().copied()).take(8);
    for (index, extends) in links
        .filter_map(|profile| profile.extends.as_ref())
        .enumerate()
    {
        fault = fault.with_label(link_label(extends, index == 0, faults));
    }
    faults.push(fault);
}

fn link_label(extends: &At<String>, primary: bool, faults: &Faults) -> crate::diagnostic::Label {
    if primary {
        faults.primary(extends.span, "the circle begins here")
    } else {
        faults.context(extends.span, "and goes on here")
    }
}
