//! The operator's hooks: `hooks/STAGE.d/NAME` of the source, which the initrd runs after STAGE.

use std::fs::{self, DirEntry};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::BuildError;
use super::tree::{Item, Tree, fault};

/// Where the image has them; `init` runs what stands there.
pub(crate) const PATH: &str = "lib/bridgehead/hooks";
const STAGES: &str = "lib/bridgehead/stages/";
/// The stages that boots do not come back from, with what to do about a hook after one.
const ENDS: [(&str, &str); 3] = [
    (
        "inventory",
        "would never run in an inventory boot, which waits in `inventory`, and in every other boot before `link`; \
         take nic.d, which runs in both",
    ),
    (
        "rescue",
        "would never run in a rescue boot, which ends in `rescue`, and in every other boot before `root`; \
         take storage-net.d, which runs in both",
    ),
    (
        "switch",
        "would never run: `switch` ends the initrd; take verify.d, the stage before",
    ),
];

/// Packs the hooks of `source_dir`. A hook that would never run is an error: its author counts on it.
pub(crate) fn add(tree: &mut Tree, source_dir: &Path) -> Result<(), BuildError> {
    let dir = source_dir.join("hooks");
    if !dir.exists() {
        return Ok(());
    }
    for entry in entries(&dir)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("README") {
            continue;
        }
        let stage = name
            .strip_suffix(".d")
            .filter(|_| entry.path().is_dir())
            .ok_or_else(|| {
                let problem = "is no STAGE.d directory; a hook is hooks/STAGE.d/NAME";
                fault(&format!("hooks/{name}"), problem)
            })?;
        check_stage(tree, stage)?;
        for hook in entries(&entry.path())? {
            add_hook(tree, stage, &hook)?;
        }
    }
    Ok(())
}

/// What stands in a directory, by name; hidden files and editors' backups are nobody's hooks.
fn entries(dir: &Path) -> Result<Vec<DirEntry>, BuildError> {
    let read = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut found: Vec<DirEntry> = read.map_err(BuildError::io("read hooks", dir))?;
    found.retain(|entry| {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        !name.starts_with(b".") && !name.ends_with(b"~")
    });
    found.sort_by_key(DirEntry::file_name);
    Ok(found)
}

fn check_stage(tree: &Tree, stage: &str) -> Result<(), BuildError> {
    let path = format!("hooks/{stage}.d");
    if let Some((_, problem)) = ENDS.into_iter().find(|(name, _)| *name == stage) {
        return Err(fault(&path, problem));
    }
    let with_hooks = |stage: &&str| ENDS.iter().all(|(name, _)| name != stage);
    let stages: Vec<&str> = stages(tree).filter(with_hooks).collect();
    if stages.contains(&stage) {
        return Ok(());
    }
    let problem = format!("there is no stage `{stage}`; stages: {}", stages.join(", "));
    Err(fault(&path, problem))
}

/// `NN-NAME`, in the order in which they run.
fn stages(tree: &Tree) -> impl Iterator<Item = &str> {
    let files = tree.0.range(STAGES.to_owned()..);
    let files = files.map_while(|(path, _)| path.strip_prefix(STAGES));
    files.filter_map(|file| Some(file.split_once('-')?.1))
}

fn add_hook(tree: &mut Tree, stage: &str, entry: &DirEntry) -> Result<(), BuildError> {
    let name = entry.file_name().to_string_lossy().into_owned();
    let shown = format!("hooks/{stage}.d/{name}");
    let source = entry.path();
    let metadata = fs::metadata(&source).map_err(BuildError::io("stat hook", &source))?;
    if !metadata.is_file() {
        return Err(fault(
            &shown,
            "is not a file; a hook is one executable file",
        ));
    }
    if metadata.permissions().mode() & 0o100 == 0 {
        let problem = "is not executable and would not run; chmod 755 it, or move it elsewhere";
        return Err(fault(&shown, problem));
    }
    let bytes = fs::read(&source).map_err(BuildError::io("read hook", &source))?;
    let mut item = Item::file(0o755, bytes);
    item.reason = Some(format!("hook after {stage}"));
    tree.insert(&format!("{PATH}/{stage}.d/{name}"), item)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lab;
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        for stage in ["30-nic", "91-rescue", "91-root", "94-switch"] {
            let path = format!("{STAGES}{stage}");
            tree.insert(&path, Item::file(0o644, vec![])).unwrap();
        }
        tree
    }

    fn hook(lab: &Lab, path: &str) {
        lab.write(&format!("initrd/hooks/{path}"), "#!/bin/sh\n");
        lab.chmod(&format!("initrd/hooks/{path}"), 0o755);
    }

    #[test]
    fn hooks_go_in_below_their_stage_and_may_run() {
        let lab = Lab::new();
        hook(&lab, "nic.d/10-leds");
        hook(&lab, "root.d/10-check");
        lab.write("initrd/hooks/README.md", "");
        lab.write("initrd/hooks/nic.d/10-leds~", "");
        lab.write("initrd/hooks/nic.d/.swp", "");
        let mut tree = tree();
        add(&mut tree, &lab.path("initrd")).unwrap();
        let hooks = tree.0.iter().filter(|(path, item)| {
            path.starts_with(PATH) && item.permissions == 0o755 && item.reason.is_some()
        });
        let hooks: Vec<&str> = hooks.map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            hooks,
            [
                "lib/bridgehead/hooks/nic.d/10-leds",
                "lib/bridgehead/hooks/root.d/10-check"
            ]
        );
    }

    #[test]
    fn what_would_never_run_is_refused() {
        for (path, mode, expected) in [
            (
                "nics.d/10-a",
                0o755,
                "there is no stage `nics`; stages: nic, root",
            ),
            ("switch.d/10-a", 0o755, "would never run"),
            ("rescue.d/10-a", 0o755, "never run in a rescue boot"),
            ("nic.d/10-a", 0o644, "chmod 755"),
            ("nic.d/10-a/b", 0o755, "is not a file"),
            ("10-a", 0o755, "is no STAGE.d directory"),
        ] {
            let lab = Lab::new();
            hook(&lab, path);
            lab.chmod(&format!("initrd/hooks/{path}"), mode);
            let error = add(&mut tree(), &lab.path("initrd")).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn no_hooks_is_fine() {
        add(&mut tree(), &Lab::new().path("initrd")).unwrap();
    }
}
