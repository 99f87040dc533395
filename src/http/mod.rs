//! Boot files and the daemon's API over HTTP.
