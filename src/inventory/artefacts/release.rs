//! Whether a kernel and an initrd belong together.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::Check;
use crate::diagnostic::{Diagnostic, Label, Severity};
use crate::inventory::model::{Profile, Sourced};
use crate::regular;

/// A manifest lists some hundred files; more than this is not one.
const MAX_MANIFEST: u64 = 8 << 20;

impl Check<'_> {
    /// An initrd's modules load only into the very release they were built for.
    pub(super) fn release(&mut self, profile: &Profile, severity: Severity) {
        let (kernel, initrd) = (&*profile.kernel, &*profile.initrd);
        let running = self.data.join(format!("kernels/{kernel}/release"));
        let manifest = self.data.join(format!("initrds/{initrd}.manifest"));
        let (Some(release), Some(built_for)) = (read_release(&running), read_manifest(&manifest))
        else {
            self.unknown_release(profile, &running, &manifest);
            return;
        };
        let key = format!("release {kernel} {initrd}");
        if release == built_for || self.found.contains_key(&key) {
            return;
        }
        let message = format!(
            "the initrd {initrd} was built for kernel release {built_for}, but kernel {kernel} is {release}"
        );
        let mut diagnostic = Diagnostic::error("artefacts::release_mismatch", message)
            .with_help("run `make initrd`: with another kernel's modules there is no network");
        diagnostic.severity = severity;
        let initrd_label = profile.initrd.origin.as_ref();
        let initrd_label = initrd_label.map(|origin| self.label(origin, &built_for));
        let kernel_label = profile.kernel.origin.as_ref();
        let kernel_label = kernel_label.map(|origin| Label {
            primary: false,
            ..self.label(origin, &release)
        });
        diagnostic
            .labels
            .extend(initrd_label.into_iter().chain(kernel_label));
        self.found.insert(key, diagnostic);
    }

    fn unknown_release(&mut self, profile: &Profile, running: &Path, manifest: &Path) {
        let (path, at, verb): (_, &Sourced<String>, _) = match read_release(running) {
            None => (running, &profile.kernel, "make kernel"),
            Some(_) => (manifest, &profile.initrd, "make initrd"),
        };
        let key = format!("unknown {}", path.display());
        let message = format!(
            "{} can't be read, so nobody knows whether kernel {} and initrd {} belong together",
            path.display(),
            *profile.kernel,
            *profile.initrd
        );
        let mut diagnostic = Diagnostic::warning("artefacts::unknown_release", message)
            .with_help(format!("run `{verb}`, which writes it"));
        let label = at.origin.as_ref().map(|origin| self.label(origin, ""));
        diagnostic.labels.extend(label);
        self.found.entry(key).or_insert(diagnostic);
    }
}

pub(super) fn read_release(path: &Path) -> Option<String> {
    let text = read_capped(path, 4096)?;
    let release = text.lines().next()?.trim();
    (!release.is_empty()).then(|| release.to_owned())
}

#[derive(Deserialize)]
struct Manifest {
    kernel_release: String,
}

fn read_manifest(path: &Path) -> Option<String> {
    let text = read_capped(path, MAX_MANIFEST)?;
    let manifest: Manifest = serde_json::from_str(&text).ok()?;
    Some(manifest.kernel_release)
}

fn read_capped(path: &Path, most: u64) -> Option<String> {
    let mut text = String::new();
    let file = regular::open(path).ok()?;
    file.take(most).read_to_string(&mut text).ok()?;
    Some(text)
}
