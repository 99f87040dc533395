//! A module's `.modinfo`: NUL-separated `key=value` (kernel, `include/linux/moduleparam.h`).

use super::elf::{BadElf, Elf};

/// The entries in file order; keys repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Modinfo(Vec<(String, String)>);

impl Modinfo {
    /// Reads the section of an uncompressed module; a module without it has no entries.
    pub(crate) fn of_module(bytes: &[u8]) -> Result<Self, BadElf> {
        let section = Elf::new(bytes)?.section(".modinfo")?;
        Ok(Self::parse(section.unwrap_or_default()))
    }

    fn parse(section: &[u8]) -> Self {
        let entries = section
            .split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='));
        Self(
            entries
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// Every value of `key`.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let entries = self.0.iter().filter(move |(name, _)| name == key);
        entries.map(|(_, value)| value.as_str())
    }

    /// The kernel release that the module was built for (first word of `vermagic`).
    pub(crate) fn built_for(&self) -> Option<&str> {
        self.all("vermagic").next()?.split_whitespace().next()
    }

    /// The rest of `vermagic`: how the kernel was configured.
    pub(crate) fn built_with(&self) -> Option<&str> {
        let (_, flags) = self.all("vermagic").next()?.split_once(' ')?;
        Some(flags.trim())
    }

    /// Firmware files, sorted, each once.
    pub(crate) fn firmware(&self) -> Vec<String> {
        let mut files: Vec<String> = self.all("firmware").map(str::to_owned).collect();
        files.sort();
        files.dedup();
        files
    }

    /// Whether the module only loads on CPUs with a certain feature (`MODULE_DEVICE_TABLE(x86cpu)`).
    pub(crate) fn wants_cpu_feature(&self) -> bool {
        self.all("alias").any(|alias| alias.starts_with("cpu:"))
    }
}

/// Soft dependencies: what to load before and after (kernel, `MODULE_SOFTDEP`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Softdep {
    pub(crate) pre: Vec<String>,
    pub(crate) post: Vec<String>,
}

impl Softdep {
    /// Adds `pre: a b post: c`; words before the first `pre:` or `post:` mean nothing (modprobe.d(5)).
    pub(crate) fn add<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        let mut into = None;
        for word in words {
            match (word, into) {
                ("pre:", _) => into = Some(true),
                ("post:", _) => into = Some(false),
                (name, Some(true)) => self.pre.push(name.to_owned()),
                (name, Some(false)) => self.post.push(name.to_owned()),
                (_, None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::module;
    use super::*;

    #[test]
    fn reads_firmware_and_vermagic() {
        let bytes = module(&[
            ("firmware", "b.fw"),
            ("firmware", "a.fw"),
            ("firmware", "b.fw"),
            ("vermagic", "6.1.0-test SMP preempt mod_unload"),
            ("alias", "cpu:type:x86,ven*"),
        ]);
        let info = Modinfo::of_module(&bytes).unwrap();
        assert_eq!(info.firmware(), ["a.fw", "b.fw"]);
        assert_eq!(info.built_for(), Some("6.1.0-test"));
        assert!(info.wants_cpu_feature());
    }

    #[test]
    fn softdep_splits_before_and_after() {
        let mut soft = Softdep::default();
        soft.add("gcm pre: a b post: c".split_whitespace());
        assert_eq!(soft.pre, ["a", "b"]);
        assert_eq!(soft.post, ["c"]);
    }
}
