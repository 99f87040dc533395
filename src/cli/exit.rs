//! How a command ends.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// A command that did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// Exit code 1: `bridgehead: cannot OPERATION: CAUSE`.
    pub fn failed(operation: &str, cause: &dyn Error) -> Self {
        Self {
            code: 1,
            text: format!("bridgehead: cannot {operation}: {}", chain(cause)),
        }
    }

    /// Exit code 1, from an error that names its own operation.
    pub fn of(error: &dyn Error) -> Self {
        Self {
            code: 1,
            text: format!("bridgehead: {}", chain(error)),
        }
    }

    /// Exit code 1, in the words given.
    pub fn said(text: impl Into<String>) -> Self {
        Self {
            code: 1,
            text: format!("bridgehead: {}", text.into()),
        }
    }

    /// Exit code 3: the inventory has these faults.
    pub fn inventory(text: String) -> Self {
        Self { code: 3, text }
    }

    /// Exit code 4: the daemon does not answer.
    pub fn unreachable(text: String) -> Self {
        Self {
            code: 4,
            text: format!("bridgehead: {text}"),
        }
    }

    /// Exit code 5: what was waited for did not happen.
    pub fn timed_out(text: String) -> Self {
        Self {
            code: 5,
            text: format!("bridgehead: {text}"),
        }
    }

    /// Exit code 0: nobody reads any more, and nothing went wrong.
    pub fn unread() -> Self {
        let text = String::new();
        Self { code: 0, text }
    }

    /// The words.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether nobody answered.
    pub fn is_unreachable(&self) -> bool {
        self.code == 4
    }

    /// Prints the words to stderr and gives the code.
    pub fn report(&self) -> ExitCode {
        let prefix = crate::daemon::error_prefix();
        for line in self.text.lines() {
            // If stderr is gone, the exit code still says it.
            let _ = writeln!(std::io::stderr(), "{prefix}{line}");
        }
        ExitCode::from(self.code)
    }
}

/// An error and its causes, from the outermost in.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
