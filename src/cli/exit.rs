//! How a command ends.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// How a command ends: the exit codes of every verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked to.
    Ok = 0,
    /// It did not. Another try may do: `serve` ends so also where the data directory lacks what hosts boot from, for it may
    /// be mounted late.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The inventory has faults.
    Inventory = 3,
    /// The daemon does not answer.
    Unreachable = 4,
    /// What was waited for did not happen.
    TimedOut = 5,
}

impl Exit {
    /// Every one, by its number.
    pub const ALL: &[Self] = &[
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Inventory,
        Self::Unreachable,
        Self::TimedOut,
    ];

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Inventory => "inventory invalid",
            Self::Unreachable => "daemon unreachable",
            Self::TimedOut => "wait timed out",
        }
    }
}

/// A command that did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    code: Exit,
    text: String,
}

impl Failure {
    /// Exit code 1: `bridgehead: cannot OPERATION: CAUSE`.
    pub fn failed(operation: &str, cause: &dyn Error) -> Self {
        Self {
            code: Exit::Failed,
            text: format!("bridgehead: cannot {operation}: {}", chain(cause)),
        }
    }

    /// Exit code 1, from an error that names its own operation.
    pub fn of(error: &dyn Error) -> Self {
        Self {
            code: Exit::Failed,
            text: format!("bridgehead: {}", chain(error)),
        }
    }

    /// Exit code 1, in the words given.
    pub fn said(text: impl Into<String>) -> Self {
        Self {
            code: Exit::Failed,
            text: format!("bridgehead: {}", text.into()),
        }
    }

    /// Exit code 3: the inventory has these faults.
    pub fn inventory(text: String) -> Self {
        Self {
            code: Exit::Inventory,
            text,
        }
    }

    /// Exit code 1: the inventory may be sound, but the data directory lacks these.
    pub fn data(text: String) -> Self {
        Self {
            code: Exit::Failed,
            text,
        }
    }

    /// Exit code 4: the daemon does not answer.
    pub fn unreachable(text: String) -> Self {
        Self {
            code: Exit::Unreachable,
            text: format!("bridgehead: {text}"),
        }
    }

    /// Exit code 5: what was waited for did not happen.
    pub fn timed_out(text: String) -> Self {
        Self {
            code: Exit::TimedOut,
            text: format!("bridgehead: {text}"),
        }
    }

    /// Exit code 0: nobody reads any more, and nothing went wrong.
    pub fn unread() -> Self {
        let text = String::new();
        Self {
            code: Exit::Ok,
            text,
        }
    }

    /// The words.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether nobody answered.
    pub fn is_unreachable(&self) -> bool {
        self.code == Exit::Unreachable
    }

    /// Prints the words to stderr and gives the code.
    pub fn report(&self) -> ExitCode {
        let prefix = crate::daemon::error_prefix();
        for line in self.text.lines() {
            // If stderr is gone, the exit code still says it.
            let _ = writeln!(std::io::stderr(), "{prefix}{line}");
        }
        ExitCode::from(self.code as u8)
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
