//! The initrd builder: module, firmware and ELF closure, cpio newc, compression, manifest.
//!
//! [`build`] packs an `initrd/` source tree, static BusyBox, the modules of its lists with
//! everything they need, and the firmware that these or `firmware.list` name. The same inputs give the same bytes,
//! whoever builds wherever. [`list`] reads an image back and says why each module is in it.
//!
//! The image is a row of cpio members (kernel, `Documentation/driver-api/early-userspace/buffer-format.rst`);
//! a later member's file replaces an earlier one's. Drivers come first, what operators
//! edit comes second: a changed script packs again in no time, because the drivers' member
//! is taken over from the old image when its content is unchanged.

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
mod firmware;
mod firmware_list;
mod hooks;
mod image;
mod kinds;
mod list;
mod listing;
mod manifest;
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
pub use listing::{ListError, Listed, Listing, list};
pub use manifest::{FileRecord, FirmwareRecord, Manifest, MemberRecord, ModuleRecord};
pub use nics::Nics;
