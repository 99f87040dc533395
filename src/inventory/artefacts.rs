//! Whether what the inventory names is in the data directory.
pub fn check(_: &crate::inventory::model::Inventory, _: &std::path::Path) -> Vec<crate::diagnostic::Diagnostic> { Vec::new() }
