//! The initrd builder: module, firmware and ELF closure, cpio newc, compression, manifest.
