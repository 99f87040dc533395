//! Templates to loader scripts and kernel command lines, on request and from memory.

pub(crate) mod archive;
mod context;
mod escape;
pub mod files;
mod menu;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tera::{Context, Tera};

use crate::regular;

pub use context::{BootContext, BridgeContext, FileLinks, HoldContext, ServerContext};
pub use menu::{EntryContext, LocalContext, MenuContext, SerialContext};

macro_rules! built_in {
    ($name:literal) => {
        ($name, include_str!(concat!("../../templates/", $name)))
    };
}

/// Every template that a site needs, with the text that is used where the site has no
/// `templates/` of its own.
const BUILT_IN: &[(&str, &str)] = &[
    built_in!("cmdline.txt"),
    built_in!("ipxe/boot.ipxe"),
    built_in!("ipxe/hold.ipxe"),
    built_in!("ipxe/local.ipxe"),
    built_in!("ipxe/menu.ipxe"),
    built_in!("pxelinux/boot.cfg"),
    built_in!("pxelinux/hold.cfg"),
    built_in!("pxelinux/local.cfg"),
    built_in!("pxelinux/menu.cfg"),
    built_in!("grub/boot.cfg"),
    built_in!("grub/hold.cfg"),
    built_in!("grub/local.cfg"),
    built_in!("grub/menu.cfg"),
];

/// x86 kernels take command lines of 2047 bytes (`COMMAND_LINE_SIZE` 2048 with its NUL).
const MAX_CMDLINE: usize = 2047;
/// A larger template is none, bytes.
const MAX_TEMPLATE: u64 = 1 << 20;

/// A template can't be read or does not render.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A file of the template directory can't be read.
    #[error("cannot read the template {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The text is no template, or asks for something that there is not.
    #[error("the template {name} does not render: {report}")]
    Broken {
        /// Which template, below the template directory.
        name: String,
        /// What the engine says, with the line.
        report: String,
    },
    /// More than the kernel takes.
    #[error(
        "the kernel command line of {machine} has {bytes} bytes, and the kernel takes {MAX_CMDLINE}"
    )]
    CmdlineTooLong {
        /// Whose it is.
        machine: String,
        /// Its length.
        bytes: usize,
    },
}

/// The loader whose config is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigKind {
    /// `script.ipxe`.
    Ipxe,
    /// `pxelinux.cfg/01-…`.
    Pxelinux,
    /// `grub.cfg`.
    Grub,
}

impl fmt::Display for ConfigKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipxe => "iPXE script",
            Self::Pxelinux => "PXELINUX config",
            Self::Grub => "GRUB config",
        })
    }
}

impl ConfigKind {
    fn boot(self) -> &'static str {
        match self {
            Self::Ipxe => "ipxe/boot.ipxe",
            Self::Pxelinux => "pxelinux/boot.cfg",
            Self::Grub => "grub/boot.cfg",
        }
    }

    fn hold(self) -> &'static str {
        match self {
            Self::Ipxe => "ipxe/hold.ipxe",
            Self::Pxelinux => "pxelinux/hold.cfg",
            Self::Grub => "grub/hold.cfg",
        }
    }

    fn menu(self) -> &'static str {
        match self {
            Self::Ipxe => "ipxe/menu.ipxe",
            Self::Pxelinux => "pxelinux/menu.cfg",
            Self::Grub => "grub/menu.cfg",
        }
    }

    fn local(self) -> &'static str {
        match self {
            Self::Ipxe => "ipxe/local.ipxe",
            Self::Pxelinux => "pxelinux/local.cfg",
            Self::Grub => "grub/local.cfg",
        }
    }
}

/// The site's templates, parsed.
#[derive(Debug, Clone)]
pub struct Templates {
    tera: Tera,
    own: Texts,
}

/// Texts of templates, by name.
pub type Texts = BTreeMap<String, String>;

impl Templates {
    /// The files that a template directory holds.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Reads the templates of a directory; what it has not, and all without one, are those that are built in.
    ///
    /// # Errors
    /// Every template that can't be read or parsed.
    pub fn load(directory: Option<&Path>) -> Result<Self, Vec<RenderError>> {
        let Some(directory) = directory else {
            return Self::with(Texts::new());
        };
        // Of a directory that is not there nothing is built in: its name is wrong.
        if let Err(source) = fs::metadata(directory) {
            let path = directory.to_owned();
            return Err(vec![RenderError::Unreadable { path, source }]);
        }
        let mut faults = Vec::new();
        let mut own = Texts::new();
        for name in Self::names() {
            match read(directory, name) {
                Ok(text) => own.extend(text.map(|text| (name.to_owned(), text))),
                Err(fault) => faults.push(fault),
            }
        }
        match Self::with(own) {
            Ok(templates) if faults.is_empty() => Ok(templates),
            Ok(_) => Err(faults),
            Err(broken) => Err(faults.into_iter().chain(broken).collect()),
        }
    }

    /// The site's own, and the others as they are built in.
    ///
    /// # Errors
    /// Every template that can't be parsed.
    pub fn with(own: Texts) -> Result<Self, Vec<RenderError>> {
        let mut tera = Tera::default();
        tera.autoescape_on(Vec::<&'static str>::new());
        let mut faults = Vec::new();
        for (name, built_in) in BUILT_IN {
            let text = own.get(*name).map_or(*built_in, String::as_str);
            if let Err(error) = tera.add_raw_template(name, text) {
                faults.push(broken(name, &error));
            }
        }
        match faults.is_empty() {
            true => Ok(Self { tera, own }),
            false => Err(faults),
        }
    }

    /// Those that are not built in, as they were read.
    pub fn own(&self) -> &Texts {
        &self.own
    }

    /// The kernel command line: the template's words, joined by single spaces.
    ///
    /// # Errors
    /// [`RenderError`] if it does not render or is too long.
    pub fn cmdline(&self, context: &BootContext) -> Result<String, RenderError> {
        // What has no initrd of ours takes none of its arguments.
        let text = match context.initrd {
            Some(_) => self.render("cmdline.txt", context)?,
            None => context.arguments.join(" "),
        };
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.len() > MAX_CMDLINE {
            return Err(RenderError::CmdlineTooLong {
                machine: context.machine.clone(),
                bytes: line.len(),
            });
        }
        Ok(line)
    }

    /// The config that boots a listed host.
    ///
    /// # Errors
    /// [`RenderError`] if it does not render.
    pub fn boot_config(
        &self,
        kind: ConfigKind,
        context: &BootContext,
    ) -> Result<String, RenderError> {
        let cmdline = self.cmdline(context)?;
        let mut values = self.context(kind.boot(), context)?;
        values.insert("site", &escape::shown(kind, &context.site));
        values.insert("cmdline_quoted", &escape::grub_words(&cmdline));
        values.insert("cmdline", &escape::arguments(kind, &cmdline));
        self.tera
            .render(kind.boot(), &values)
            .map_err(|error| broken(kind.boot(), &error))
    }

    /// The config that makes an unlisted machine wait.
    ///
    /// # Errors
    /// [`RenderError`] if it does not render.
    pub fn hold_config(
        &self,
        kind: ConfigKind,
        context: &HoldContext,
    ) -> Result<String, RenderError> {
        let mut values = self.context(kind.hold(), context)?;
        values.insert("site", &escape::shown(kind, &context.site));
        self.tera
            .render(kind.hold(), &values)
            .map_err(|error| broken(kind.hold(), &error))
    }

    fn render(&self, name: &str, context: &impl serde::Serialize) -> Result<String, RenderError> {
        let values = self.context(name, context)?;
        self.tera
            .render(name, &values)
            .map_err(|error| broken(name, &error))
    }

    fn context(&self, name: &str, context: &impl serde::Serialize) -> Result<Context, RenderError> {
        Context::from_serialize(context).map_err(|error| broken(name, &error))
    }
}

/// `None`: the directory has none of this name.
fn read(directory: &Path, name: &str) -> Result<Option<String>, RenderError> {
    let path = directory.join(name);
    match regular::text(&path, MAX_TEMPLATE) {
        // A directory that was made for an older version lacks what is new since.
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read
            .map(Some)
            .map_err(|source| RenderError::Unreadable { path, source }),
    }
}

fn broken(name: &str, error: &tera::Error) -> RenderError {
    RenderError::Broken {
        name: name.to_owned(),
        report: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> BootContext {
        let server = ServerContext {
            url: "http://10.77.0.1".into(),
            address: "10.77.0.1".into(),
        };
        BootContext {
            site: "lab".into(),
            machine: "kvm01".into(),
            mac: "52:54:00:00:00:01".into(),
            bootif: "01-52-54-00-00-00-01".into(),
            attempt: "0192".into(),
            token: "ab".repeat(16),
            daemon: server.clone(),
            bridge: context::BridgeContext {
                name: "br0".into(),
                mtu: 1500,
                vlan: None,
                bond: None,
                ports: None,
            },
            address: "10.77.0.11/24".into(),
            router: Some("10.77.0.1".into()),
            dns: None,
            on_failure: "reboot".into(),
            arguments: vec!["console=ttyS0,115200".into(), "it's".into()],
            kernel: FileLinks::new("debian", "kernels/debian/vmlinuz", &server),
            serial: None,
            initrd: Some(FileLinks::new("default", "initrds/default.img", &server)),
            server,
        }
    }

    #[test]
    fn the_command_line_is_one_line_and_leaves_out_what_is_not_set() {
        let line = Templates::load(None).unwrap().cmdline(&context()).unwrap();
        assert!(
            line.starts_with("bridgehead.url=http://10.77.0.1 bridgehead.host=kvm01 "),
            "{line}"
        );
        assert!(line.ends_with(" console=ttyS0,115200 it's"), "{line}");
        assert!(!line.contains("dns"));
    }

    #[test]
    fn the_command_line_says_what_the_bridge_stands_on() {
        let mut stacked = context();
        stacked.bridge.vlan = Some(100);
        stacked.bridge.bond = Some("bond0,mode=802.3ad,miimon=100".into());
        stacked.bridge.ports = Some("52:54:00:00:00:01,52:54:00:00:00:02".into());
        stacked.daemon.url = "http://10.99.0.1".into();
        let line = Templates::load(None).unwrap().cmdline(&stacked).unwrap();
        assert!(
            line.starts_with("bridgehead.url=http://10.99.0.1 "),
            "{line}"
        );
        let words = "bridgehead.mtu=1500 bridgehead.vlan=100 \
                     bridgehead.bond=bond0,mode=802.3ad,miimon=100 \
                     bridgehead.ports=52:54:00:00:00:01,52:54:00:00:00:02 bridgehead.ip=";
        assert!(line.contains(words), "{line}");
    }

    #[test]
    fn scripts_are_golden() {
        let templates = Templates::load(None).unwrap();
        for kind in [ConfigKind::Ipxe, ConfigKind::Pxelinux, ConfigKind::Grub] {
            insta::assert_snapshot!(
                kind.boot().replace('/', "-"),
                templates.boot_config(kind, &context()).unwrap()
            );
        }
        let hold = HoldContext {
            site: "lab".into(),
            mac: "52:54:00:00:00:09".into(),
            server: context().server,
            hold_seconds: 15,
        };
        for kind in [ConfigKind::Ipxe, ConfigKind::Pxelinux, ConfigKind::Grub] {
            insta::assert_snapshot!(
                kind.hold().replace('/', "-"),
                templates.hold_config(kind, &hold).unwrap()
            );
        }
    }

    #[test]
    fn what_a_sites_templates_lack_is_built_in_and_every_fault_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let own = "#!ipxe\n# our own\n";
        fs::create_dir(dir.path().join("ipxe")).unwrap();
        fs::write(dir.path().join("ipxe/boot.ipxe"), own).unwrap();
        let templates = Templates::load(Some(dir.path())).unwrap();
        let script = |kind| templates.boot_config(kind, &context()).unwrap();
        assert_eq!(script(ConfigKind::Ipxe), own);
        assert!(script(ConfigKind::Grub).contains("vmlinuz"));

        fs::write(dir.path().join("cmdline.txt"), "{% if %}").unwrap();
        fs::create_dir(dir.path().join("ipxe/menu.ipxe")).unwrap();
        let faults = Templates::load(Some(dir.path())).unwrap_err();
        assert_eq!(faults.len(), 2);
        for name in ["cmdline.txt", "ipxe/menu.ipxe"] {
            assert!(faults.iter().any(|fault| fault.to_string().contains(name)));
        }
        let faults = Templates::load(Some(&dir.path().join("templatse"))).unwrap_err();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].to_string().ends_with("/templatse"));
    }

    #[test]
    fn an_unknown_value_is_an_error_and_not_an_empty_text() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in BUILT_IN {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(
                dir.path().join(name),
                text.replace("{{ token }}", "{{ tokn }}"),
            )
            .unwrap();
        }
        let error = Templates::load(Some(dir.path()))
            .unwrap()
            .cmdline(&context())
            .unwrap_err();
        assert!(error.to_string().contains("tokn"), "{error}");
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let mut long = context();
        long.arguments.push("x".repeat(MAX_CMDLINE));
        let error = Templates::load(None).unwrap().cmdline(&long).unwrap_err();
        assert!(matches!(error, RenderError::CmdlineTooLong { .. }));
    }
}
