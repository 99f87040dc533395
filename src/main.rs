//! The `bridgehead` command.

fn main() -> std::process::ExitCode {
    bridgehead::cli::run()
}
