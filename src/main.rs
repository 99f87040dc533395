//! The `bridgehead` command.

fn main() {}
