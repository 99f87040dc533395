//! The daemon under the rights that its systemd unit leaves it, and no others.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use crate::clients::{Program, lease};
use crate::discover::{BARE, Stranger, approve};
use crate::lab::io_error;
use crate::scribe::{PATIENCE, Process, scribe};
use crate::{ok, site_by};

const UNIT: &str = include_str!("../../packaging/bridgehead.service");

/// The unit's bounding set in the words of setpriv(1).
fn bounding_set() -> String {
    let lines = UNIT
        .lines()
        .filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let kept = lines.flat_map(str::split_whitespace);
    let kept = kept.map(|name| name.trim_start_matches("CAP_").to_lowercase());
    kept.fold("-all".to_owned(), |set, name| format!("{set},+{name}"))
}

#[test]
fn a_service_serves_and_edits_with_the_rights_of_its_unit() {
    let set = bounding_set();
    assert!(set.starts_with("-all,+net_bind_service,"), "{set}");
    let by = ["setpriv", "--no-new-privs", "--bounding-set", &set];
    let by = by.map(str::to_owned).to_vec();
    let Some((mut site, ())) = site_by("unit", |_| ((), by)) else {
        return;
    };
    ok(site.daemon.wait_for("bridgehead: ready", PATIENCE * 6));
    // The operator's file, and nobody else's.
    let (owner, mode) = (4711, 0o600);
    let mine = || {
        chown(&site.inventory, Some(owner), Some(owner))?;
        fs::set_permissions(&site.inventory, fs::Permissions::from_mode(mode))
    };
    ok(mine().map_err(io_error("give away", &site.inventory)));
    let child = scribe(&site);
    let (daemon, child) = (Process::of(site.daemon.pid()), Process::of(child));
    for (process, rights) in [(&daemon, "0000000000002404"), (&child, "000000000000000b")] {
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(process.says(set).as_deref(), Some(rights), "{set}");
        }
    }
    assert_ne!(child.network(), daemon.network());

    let listed = ok(site.lab.client("listed", "52:54:00:00:00:01"));
    ok(lease(Program::Udhcpc, &listed, site.lab.dir(), None));
    Stranger::new(&site, "bare", BARE).dhcp();
    let (done, said) = approve(&site, BARE, "kvm07", &[]);
    assert!(done, "{said}");
    let written =
        ok(fs::read_to_string(&site.inventory).map_err(io_error("read", &site.inventory)));
    assert!(written.contains("kvm07"), "{written}");
    let about = ok(fs::metadata(&site.inventory).map_err(io_error("ask", &site.inventory)));
    assert_eq!((about.uid(), about.mode() & 0o777), (owner, mode));
    ok(site.daemon.wait_for("+ host kvm07", PATIENCE));
}
