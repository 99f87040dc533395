//! What stands in a file of a tree.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use tera::Tera;

/// The name of the one template that each file's engine has.
pub(super) const SELF: &str = "file";

/// What a host gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub(super) enum Content {
    Directory,
    Copied(Vec<u8>),
    Template {
        text: String,
        tera: Box<Tera>,
        secret: bool,
    },
}

/// [`Content`] as it is kept over a restart.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Directory,
    /// In Base64.
    Copied(String),
    Template(String),
}

impl From<Content> for Stored {
    fn from(content: Content) -> Self {
        match content {
            Content::Directory => Self::Directory,
            Content::Copied(bytes) => Self::Copied(BASE64_STANDARD.encode(bytes)),
            Content::Template { text, .. } => Self::Template(text),
        }
    }
}

impl TryFrom<Stored> for Content {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        match stored {
            Stored::Directory => Ok(Self::Directory),
            Stored::Copied(text) => {
                let bytes = BASE64_STANDARD.decode(text);
                bytes.map(Self::Copied).map_err(|error| error.to_string())
            }
            Stored::Template(text) => template(&text),
        }
    }
}

/// An engine of its own for each file: one that could include another could get at its
/// secrets without being seen to ask for them.
pub(super) fn template(text: &str) -> Result<Content, String> {
    let mut tera = Tera::default();
    tera.autoescape_on(Vec::<&'static str>::new());
    tera.add_raw_template(SELF, text)
        .map_err(|error| error.to_string())?;
    let asked = tera
        .get_template_variables(SELF)
        .map_err(|error| error.to_string())?;
    // `__tera_context` is everything.
    let secret = asked.contains("secrets") || text.contains("__tera_context");
    Ok(Content::Template {
        text: text.to_owned(),
        tera: Box::new(tera),
        secret,
    })
}
