//! Every fault of a build, not the first alone: an operator mends them in one go.

use super::error::BuildError;

/// What is wrong so far; the build goes on looking.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<BuildError>);

impl Faults {
    pub(crate) fn add(&mut self, error: BuildError) {
        match error {
            BuildError::Several(errors) => self.0.extend(errors),
            error => self.0.push(error),
        }
    }

    /// The value, or a fault more.
    pub(crate) fn keep<T>(&mut self, result: Result<T, BuildError>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    /// # Errors
    /// There are some: the only one, or [`BuildError::Several`].
    pub(crate) fn done(mut self) -> Result<(), BuildError> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(self.0.remove(0)),
            _ => Err(BuildError::Several(self.0)),
        }
    }
}
