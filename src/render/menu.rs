//! What menu templates may ask for, and their texts in the syntax of the loader.

use serde::Serialize;

use super::{ConfigKind, RenderError, ServerContext, Templates, escape};

/// For the `menu` templates.
#[derive(Debug, Clone, Serialize)]
pub struct MenuContext {
    /// The site's name.
    pub site: String,
    /// The host's name.
    pub machine: String,
    /// The MAC that asks.
    pub mac: String,
    /// The same as `BOOTIF` wants it.
    pub bootif: String,
    /// The boot attempt.
    pub attempt: String,
    /// The daemon as the loader reaches it.
    pub server: ServerContext,
    /// The line above the entries.
    pub title: String,
    /// Seconds until the default boots; `None`: never by itself.
    pub timeout: Option<u64>,
    /// The name of the default.
    pub default: String,
    /// In the order shown.
    pub entries: Vec<EntryContext>,
    /// The serial line that the loader drives, if it is to.
    pub serial: Option<SerialContext>,
}

/// One entry.
#[derive(Debug, Clone, Serialize)]
pub struct EntryContext {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// The digit that takes it.
    pub key: usize,
    /// What is shown.
    pub label: String,
    /// Its script for iPXE.
    pub url: String,
    /// Its config for PXELINUX, below the TFTP root.
    pub path: String,
    /// Its config for GRUB.
    pub grub: String,
}

/// A serial line, as the kernel's `console=` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SerialContext {
    /// `ttyS0` is 0.
    pub unit: u8,
    /// Baud.
    pub speed: u32,
}

impl SerialContext {
    /// The last `console=ttyS…` of a kernel command line: the one that the kernel makes its own.
    pub fn of<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let lines = arguments
            .into_iter()
            .filter_map(|argument| Self::parse(argument.strip_prefix("console=ttyS")?));
        lines.last()
    }

    /// `0,115200n8`; BIOS knows four lines, and the kernel's own default is 9600 baud.
    fn parse(line: &str) -> Option<Self> {
        let (unit, options) = line.split_once(',').unwrap_or((line, "9600"));
        let unit = unit.parse().ok().filter(|unit| *unit < 4)?;
        let digits = options.split(|c: char| !c.is_ascii_digit()).next()?;
        let speed = digits.parse().ok().filter(|speed| *speed <= 115_200)?;
        Some(Self { unit, speed })
    }
}

/// For the `local` templates.
#[derive(Debug, Clone, Serialize)]
pub struct LocalContext {
    /// The site's name.
    pub site: String,
    /// The host's name.
    pub machine: String,
    /// The boot attempt.
    pub attempt: String,
    /// The daemon.
    pub server: ServerContext,
    /// As in [`MenuContext`].
    pub serial: Option<SerialContext>,
}

impl Templates {
    /// The config that shows a listed host its menu.
    ///
    /// # Errors
    /// [`RenderError`] if it does not render.
    pub fn menu_config(
        &self,
        kind: ConfigKind,
        context: &MenuContext,
    ) -> Result<String, RenderError> {
        let mut context = context.clone();
        for text in [&mut context.title, &mut context.site]
            .into_iter()
            .chain(context.entries.iter_mut().map(|entry| &mut entry.label))
        {
            *text = escape::shown(kind, text);
        }
        self.render(kind.menu(), &context)
    }

    /// The config that boots a listed host from its own disk.
    ///
    /// # Errors
    /// [`RenderError`] if it does not render.
    pub fn local_config(
        &self,
        kind: ConfigKind,
        context: &LocalContext,
    ) -> Result<String, RenderError> {
        let mut context = context.clone();
        context.site = escape::shown(kind, &context.site);
        self.render(kind.local(), &context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> ServerContext {
        ServerContext {
            url: "http://10.77.0.1".into(),
            address: "10.77.0.1".into(),
        }
    }

    fn entry(key: usize, name: &str, label: &str) -> EntryContext {
        EntryContext {
            name: name.into(),
            key,
            label: label.into(),
            url: format!("http://10.77.0.1/boot/52:54:00:00:00:01/menu/{name}/script.ipxe"),
            path: format!("pxelinux.cfg/01-52-54-00-00-00-01/{name}"),
            grub: format!("(tftp,10.77.0.1)/grub/menu/{name}.cfg"),
        }
    }

    fn menu() -> MenuContext {
        MenuContext {
            site: "lab".into(),
            machine: "kvm01".into(),
            mac: "52:54:00:00:00:01".into(),
            bootif: "01-52-54-00-00-00-01".into(),
            attempt: "0192".into(),
            server: server(),
            title: "Bridgehead lab: kvm01".into(),
            timeout: Some(10),
            default: "kvm".into(),
            entries: vec![
                entry(1, "kvm", "KVM host"),
                entry(2, "rescue", "Rescue \"shell\" && ${uuid}"),
                entry(3, "disk", "Local disk"),
            ],
            serial: Some(SerialContext {
                unit: 0,
                speed: 115_200,
            }),
        }
    }

    const KINDS: [ConfigKind; 3] = [ConfigKind::Ipxe, ConfigKind::Pxelinux, ConfigKind::Grub];

    #[test]
    fn menus_are_golden() {
        let templates = Templates::load(None).unwrap();
        for kind in KINDS {
            let name = kind.menu().replace('/', "-");
            insta::assert_snapshot!(name, templates.menu_config(kind, &menu()).unwrap());
        }
        let waits = MenuContext {
            timeout: None,
            serial: None,
            ..menu()
        };
        for kind in KINDS {
            let name = format!("waits-{}", kind.menu().replace('/', "-"));
            insta::assert_snapshot!(name, templates.menu_config(kind, &waits).unwrap());
        }
    }

    #[test]
    fn local_boots_are_golden() {
        let templates = Templates::load(None).unwrap();
        let context = LocalContext {
            site: "lab".into(),
            machine: "kvm01".into(),
            attempt: "0192".into(),
            server: server(),
            serial: menu().serial,
        };
        for kind in KINDS {
            let name = kind.local().replace('/', "-");
            insta::assert_snapshot!(name, templates.local_config(kind, &context).unwrap());
        }
    }

    #[test]
    fn the_kernels_serial_console_is_the_loaders() {
        let of = |arguments: &[&str]| SerialContext::of(arguments.iter().copied());
        let line = |unit, speed| Some(SerialContext { unit, speed });
        assert_eq!(
            of(&["console=ttyS1,57600n8r", "console=tty0"]),
            line(1, 57_600)
        );
        assert_eq!(
            of(&["console=ttyS0", "console=ttyS1,115200"]),
            line(1, 115_200)
        );
        assert_eq!(of(&["console=ttyS0"]), line(0, 9600));
        for none in [
            "console=tty0",
            "console=ttyS9,115200",
            "console=ttyS0,fast",
            "console=ttyAMA0,115200",
        ] {
            assert_eq!(of(&[none]), None, "{none}");
        }
    }
}
