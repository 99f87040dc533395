//! Whether what the inventory names is in the data directory.
