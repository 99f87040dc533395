//! The initrd builder: module, firmware and ELF closure, cpio newc, compression, manifest.
//!
//! [`build`] packs an `initrd/` source tree, static BusyBox, the modules of its lists with
//! everything they need, the firmware that these or
//! `firmware.list` name, and programs of `files.list` with their libraries. The same inputs give the same bytes,
//! whoever builds wherever. [`list`] reads an image back and says why each module is in it.
//!
//! The image is a row of cpio members (kernel, `Documentation/driver-api/early-userspace/buffer-format.rst`);
//! a later member's file replaces an earlier one's. Microcode comes first, then
//! drivers, files of `files.list`, and what operators edit: a changed script packs again in no
//! time, because a member whose content is unchanged is taken over from the old image.

mod append;
mod busybox;
mod catalog;
mod closure;
mod compose;
mod compress;
mod cpio;
mod depmod;
mod elf;
mod error;
mod faults;
mod files;
mod firmware;
mod firmware_list;
mod hooks;
mod image;
mod kinds;
mod libraries;
mod list;
mod listing;
mod manifest;
mod microcode;
mod modinfo;
mod names;
mod nics;
mod out_of_tree;
mod tree;

#[cfg(test)]
mod testing;

pub use catalog::Origin;
pub use closure::Reason;
pub use compose::{BuildSpec, Built, build};
pub use compress::Compression;
pub use error::{BuildError, ListPos, MissingFirmware, MissingModule, Warning};
pub use firmware::FirmwareReason;
pub use kinds::{Kind, Total};
pub use list::FirmwarePolicy;
pub use listing::{ListError, Listed, ListedMember, Listing, list};
pub use manifest::{FileRecord, FirmwareRecord, Manifest, MemberRecord, ModuleRecord};
pub use microcode::Microcode;
pub use nics::Nics;
