//! Initrds of a test's own, and T16: what `make initrd` packs is whole, small, and the same whoever packs it where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bridgehead::initrd::{BuildSpec, list};

use super::data_dir;
use super::lab::{Result, bridgehead, io_error, kernel_dir, repository, require, run};

/// Runs `bridgehead initrd build` on an initrd's source, fast, with further arguments.
pub(crate) fn build(source: &Path, out: &Path, more: &[&str]) -> Result<()> {
    let kernel = kernel_dir(&data_dir())?;
    let paths = [&kernel, source, out].map(|path| path.display().to_string());
    let argv = [bridgehead(), "initrd", "build", "--level", "1"];
    let places = [
        "--kernel", &paths[0], "--source", &paths[1], "--out", &paths[2],
    ];
    run(&[&argv, places.as_slice(), more].concat()).map(|_| ())
}

/// `image` with one more archive after it, plain cpio, which holds `tree`: a later file wins.
pub(crate) fn append(image: &Path, tree: &Path, out: &Path) -> Result<()> {
    let pack = "cp \"$1\" \"$2\" && chmod u+w \"$2\" && size=$(stat -c %s \"$2\") && \
                truncate -s \"$(((size + 3) / 4 * 4))\" \"$2\" && \
                cd \"$3\" && find * | busybox cpio -o -H newc >>\"$2\"";
    let [image, out, tree] = [image, out, tree].map(|path| path.display().to_string());
    run(&["sh", "-c", pack, "sh", &image, &out, &tree]).map(|_| ())
}

/// Writes a program into a tree.
pub(crate) fn program(tree: &Path, path: &str, text: &str) -> Result<()> {
    let file = tree.join(path);
    let dir = file.parent().unwrap_or(tree);
    fs::create_dir_all(dir).map_err(io_error("create", dir))?;
    fs::write(&file, text).map_err(io_error("write", &file))?;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&file, mode).map_err(io_error("chmod", &file))
}

/// Packs the initrd of `source` as user `uid`, with the words of `env` first; gives the image's sha256. `dir` becomes
/// that user's; the kernel and this program may lie where only root looks.
fn build_as(uid: &str, dir: &Path, source: &Path, env: &[&str]) -> Result<String> {
    let paths = [
        kernel_dir(&data_dir())?,
        source.to_owned(),
        dir.join("image.img"),
        dir.to_owned(),
    ];
    let paths = paths.map(|path| path.display().to_string());
    run(&["chown", "-R", uid, &paths[3]])?;
    let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
    let user = [
        "setpriv",
        &user,
        &group,
        "--clear-groups",
        "--inh-caps=+dac_read_search",
    ];
    let build = [
        "--ambient-caps=+dac_read_search",
        bridgehead(),
        "initrd",
        "build",
        "--level",
        "1",
    ];
    let places = [
        "--kernel", &paths[0], "--source", &paths[1], "--out", &paths[2],
    ];
    run(&[&["env", "-C", &paths[3]], env, &user, &build, &places].concat())?;
    let sum = run(&["sha256sum", &paths[2]])?;
    Ok(sum.split(' ').next().unwrap_or_default().to_owned())
}

#[test]
fn t16_another_user_in_another_directory_packs_the_same_image() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: becoming another user needs root");
        return;
    }
    let check = || -> Result<()> {
        let [mine, theirs] = [scratch()?, scratch()?];
        let source = repository().join("initrd");
        let root = build_as("0", mine.path(), &source, &["TZ=UTC"])?;
        // A copy with other times and modes than git's.
        let copy = theirs.path().join("a/copy");
        let show = |path: &Path| path.display().to_string();
        run(&["mkdir", &show(&theirs.path().join("a"))])?;
        run(&["cp", "-r", &show(&source), &show(&copy)])?;
        run(&["chmod", "-R", "g+w", &show(&copy)])?;
        let env = ["TZ=Asia/Tokyo", "LC_ALL=tr_TR.UTF-8", "HOME=/nonexistent"];
        let nobody = build_as("65534", theirs.path(), &copy, &env)?;
        assert_eq!(root, nobody);
        Ok(())
    };
    check().unwrap_or_else(|error| panic!("{error}"));
}

fn scratch() -> Result<tempfile::TempDir> {
    tempfile::TempDir::new().map_err(io_error("make a directory in", &std::env::temp_dir()))
}

#[test]
fn t16_the_image_has_every_module_of_the_list_with_what_it_needs() {
    let check = || -> Result<()> {
        let data = data_dir();
        let modules = kernel_dir(&data)?.join("modules");
        require(&data, &[("initrds/default.img", "initrd")])?;
        let image = data.join("initrds/default.img");
        let size = fs::metadata(&image)
            .map_err(io_error("look at", &image))?
            .len();
        let budget = BuildSpec::new(&data, &data, &image).budget;
        assert!(size <= budget, "{size} bytes");
        let listing = list(&image).unwrap_or_else(|error| panic!("{error}"));
        let packed: BTreeSet<String> = listing
            .files
            .iter()
            .filter(|file| file.path.contains(".ko"))
            .map(|file| stem(&file.path))
            .collect();
        let built_in: BTreeSet<String> = read(&modules.join("modules.builtin"))?
            .lines()
            .map(stem)
            .collect();
        let listed = listed(&read(&repository().join("initrd/modules.list"))?);
        assert!(listed.len() > 25, "{listed:?}");
        for name in &listed {
            assert!(
                packed.contains(name) || built_in.contains(name),
                "no {name} in the image"
            );
        }
        let needs = dependencies(&read(&modules.join("modules.dep"))?);
        for name in &packed {
            for needed in needs.get(name).into_iter().flatten() {
                assert!(packed.contains(needed), "{name} is packed without {needed}");
            }
        }
        Ok(())
    };
    check().unwrap_or_else(|error| panic!("{error}"));
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(io_error("read", file))
}

/// `kernel/net/8021q/8021q.ko.xz` as `8021q`; - and _ are the same.
fn stem(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// The modules that every image must have by modules.list.
fn listed(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let lines = lines.filter(|line| !line.contains("->") && !line.contains("optional"));
    lines
        .filter_map(|line| line.split_whitespace().next())
        .map(stem)
        .collect()
}

/// modules.dep: a module's file, a colon, the files that it needs.
fn dependencies(text: &str) -> BTreeMap<String, Vec<String>> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(module, needed)| (stem(module), needed.split_whitespace().map(stem).collect()))
        .collect()
}
