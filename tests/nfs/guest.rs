//! A virtual machine with Debian's kernel and BusyBox: the NFS client that production has.
//!
//! QEMU's user-mode network joins it to a port on the host's loopback interface.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bridgehead::nfs::Exports;
use tempfile::TempDir;

use crate::server::Running;

/// For the whole run; it takes half a minute on two cores under TCG.
const DEADLINE: Duration = Duration::from_secs(300);

/// A kernel as the data directory holds it: `vmlinuz`, `release`, `modules/`.
pub(crate) struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// Finds the kernel and the programs that boot it, or says what is missing.
    pub(crate) fn find(directory: &Path) -> Result<Self, String> {
        let (image, modules) = (directory.join("vmlinuz"), directory.join("modules"));
        for path in [&image, &modules.join("modules.dep")] {
            if !path.exists() {
                return Err(format!(
                    "{} is not there (BRIDGEHEAD_BUILD)",
                    path.display()
                ));
            }
        }
        for program in ["qemu-system-x86_64", "busybox"] {
            which(program).ok_or_else(|| format!("{program} is not installed"))?;
        }
        Ok(Self { image, modules })
    }

    /// The modules' files, each after those that it needs.
    fn closure(&self, wanted: &[&str]) -> Vec<PathBuf> {
        let table = fs::read_to_string(self.modules.join("modules.dep")).unwrap();
        let mut files: Vec<PathBuf> = Vec::new();
        for name in wanted {
            let stem = |path: &str| {
                Path::new(path)
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .split('.')
                    .next()
                    == Some(name)
            };
            let Some((file, needs)) = table
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(file, _)| stem(file))
            else {
                continue; // Built in.
            };
            for path in needs.split_whitespace().rev().chain([file]) {
                let path = self.modules.join(path);
                if !files.contains(&path) {
                    files.push(path);
                }
            }
        }
        files
    }

    fn initramfs(&self, work: &Path) -> PathBuf {
        let root = work.join("initramfs");
        for directory in ["bin", "proc", "sys", "modules"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::copy(which("busybox").unwrap(), root.join("bin/busybox")).unwrap();
        fs::write(root.join("listing.sh"), include_str!("listing.sh")).unwrap();
        fs::write(root.join("init"), include_str!("init.sh")).unwrap();
        fs::set_permissions(
            root.join("init"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        for (number, file) in self.closure(&["e1000", "nfsv3"]).iter().enumerate() {
            fs::copy(file, root.join(format!("modules/{number:02}.ko"))).unwrap();
        }
        let image = work.join("initramfs.cpio");
        let pack = "find . | busybox cpio -o -H newc 2>/dev/null";
        let output = Command::new("sh")
            .args(["-c", pack])
            .current_dir(&root)
            .output()
            .unwrap();
        fs::write(&image, output.stdout).unwrap();
        image
    }
}

fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

struct Guest {
    child: Child,
    console: ChildStdin,
    lines: Receiver<String>,
    /// Everything that was on the console so far.
    log: Vec<String>,
    deadline: Instant,
}

impl Guest {
    fn boot(kernel: &Kernel, work: &Path, port: u16) -> Self {
        let command_line = format!("console=ttyS0 quiet panic=-1 nfsport={port}");
        let mut child = Command::new("qemu-system-x86_64")
            .args([
                "-accel",
                "tcg",
                "-cpu",
                "max",
                "-m",
                "384",
                "-display",
                "none",
                "-monitor",
                "none",
                "-no-reboot",
            ])
            .args([
                "-nodefaults",
                "-serial",
                "stdio",
                "-netdev",
                "user,id=net",
                "-device",
                "e1000,netdev=net,romfile=",
            ])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(kernel.initramfs(work))
            .args(["-append", &command_line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while output
                .read_until(b'\n', &mut line)
                .is_ok_and(|count| count > 0)
            {
                let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
        let console = child.stdin.take().unwrap();
        Self {
            child,
            console,
            lines,
            log: Vec::new(),
            deadline: Instant::now() + DEADLINE,
        }
    }

    /// Waits for a line on the console that holds this text.
    fn wait_for(&mut self, text: &str) -> String {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("`{text}` did not come; console:\n{}", self.log.join("\n"));
            };
            self.log.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    fn said(&self, start: &str) -> Vec<String> {
        self.log
            .iter()
            .filter(|line| line.starts_with(start))
            .cloned()
            .collect()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compares what the kernel's client sees with the host's tree, and restarts the server under it.
pub(crate) fn boots_from_the_server(kernel: &Kernel, top: &TempDir) {
    let work = tempfile::tempdir().unwrap();
    let server = Running::start(&[("demo", top.path().to_owned())]);
    let address = server.address;
    let mut guest = Guest::boot(kernel, work.path(), address.port());
    guest.wait_for("@ restart now");
    let mut facts = vec!["@ mounted", "@ no such export", "@ hard link"];
    if crate::is_root() {
        facts.push("@ device node");
    }
    for fact in facts {
        let said = guest.log.iter().any(|line| line == fact);
        assert!(said, "{fact}: {:#?}", guest.log);
    }
    same_tree(&guest, top.path());
    assert!(guest.said("@ro")[0].contains("Read-only file system"));
    let refused = guest.said("@rw");
    assert_eq!(refused.len(), 8, "{refused:#?}");
    for line in refused {
        assert!(
            line.contains("Read-only file system") || line.contains("Permission denied"),
            "{line}"
        );
    }

    let before = guest.wait_for("@round");
    drop(server);
    guest.wait_for("not responding");
    let exports = Exports::scan(&[("demo".to_owned(), top.path().to_owned())]).unwrap();
    let server = Running::start_with(address, exports, |server| server).unwrap();
    guest.wait_for("server 10.0.2.2 OK");
    let (_, seen) = (guest.wait_for("@round"), guest.wait_for("@round"));
    let after_number = |line: &str| line.splitn(3, ' ').nth(2).unwrap().to_owned();
    assert_eq!(after_number(&seen), after_number(&before));
    guest.console.write_all(b"enough\n").unwrap();
    guest.wait_for("@ end");
    let rest = &fs::read(top.path().join("usr/bin/tool")).unwrap()[100_000..];
    assert!(guest.said("@rest")[0].contains(&sha256(rest)));
    assert!(!server.told("Mounted"), "the client had to mount again");
}

fn same_tree(guest: &Guest, top: &Path) {
    let script = include_str!("listing.sh");
    let host = Command::new("busybox")
        .args(["sh", "-c", script])
        .current_dir(top)
        .output()
        .unwrap();
    let host = String::from_utf8_lossy(&host.stdout).into_owned();
    let seen: Vec<_> = ["@stat", "@sum", "@link"]
        .iter()
        .flat_map(|start| guest.said(start))
        .collect();
    assert!(seen.len() > 6000, "{} lines", seen.len());
    for (host, guest) in host.lines().zip(&seen) {
        assert_eq!(host, guest);
    }
    assert_eq!(host.lines().count(), seen.len());
}

fn sha256(data: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(data)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
