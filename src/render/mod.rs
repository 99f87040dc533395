//! Templates to loader configs, kernel command lines and host files.
