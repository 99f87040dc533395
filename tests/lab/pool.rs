//! Storage servers for the image pool.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::error::{LabError, Result, io_error};
use super::lustre::Lustre;
use super::process::Process;
use super::{Lab, Namespace, POOL};

/// The server behind the image pool, at [`POOL`].
#[derive(Debug)]
pub enum PoolServer {
    /// MooseFS from Debian's packages, in a namespace.
    Moosefs(Moosefs),
    /// Lustre from an installed tree, in a virtual machine.
    Lustre(Lustre),
}

impl PoolServer {
    /// One line for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Lustre(_) => "Lustre: MGS, MDT and two OSTs in a virtual machine".to_owned(),
            Self::Moosefs(pool) => format!(
                "MooseFS {}: mfsmaster and mfschunkserver from Debian",
                pool.version
            ),
        }
    }
}

/// A MooseFS master with one chunk server; its files go with the lab.
///
/// Fields drop in order: the chunk server first, as an operator would stop them.
#[derive(Debug)]
pub struct Moosefs {
    chunkserver: Process,
    master: Process,
    namespace: Namespace,
    version: String,
}

impl Moosefs {
    /// Starts both and waits until the chunk server has registered with its master.
    ///
    /// The chunks live under `data`, which must be on a disk and not on a small tmpfs.
    pub fn start(lab: &Lab, data: &Path, logs: &Path) -> Result<Self> {
        fs::create_dir_all(logs).map_err(io_error("create", logs))?;
        let namespace = lab.client("pool", "52:54:00:77:00:05")?;
        let address = format!("{POOL}/24");
        namespace.ip(&["addr", "add", &address, "dev", "eth0"])?;
        write_config(data)?;
        let spawn = |program: &str, config: &str| {
            let config = data.join(config).display().to_string();
            let argv = [program, "-c", &config, "-f", "start"];
            let log = logs.join(format!("{program}.log"));
            Process::spawn(program, namespace.name(), &argv, &log)
        };
        let mut master = spawn("mfsmaster", "master.cfg")?;
        let deadline = Duration::from_secs(30);
        master.wait_for("mfsmaster daemon initialized properly", deadline)?;
        let chunkserver = spawn("mfschunkserver", "chunkserver.cfg")?;
        master.wait_for("chunkserver register end", deadline)?;
        Ok(Self {
            version: version(),
            namespace,
            master,
            chunkserver,
        })
    }

    /// The namespace it serves from.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

/// MooseFS keeps a lock and its metadata in `DATA_PATH`; a master starts from an empty metadata file.
fn write_config(data: &Path) -> Result<()> {
    if data.exists() {
        fs::remove_dir_all(data).map_err(io_error("remove", data))?;
    }
    for dir in ["master", "chunkserver", "disk"] {
        let dir = data.join(dir);
        fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
    }
    let empty = Path::new("/var/lib/mfs/metadata.mfs.empty");
    fs::copy(empty, data.join("master/metadata.mfs")).map_err(|_| LabError::Missing {
        what: empty.display().to_string(),
        help: "install the packages moosefs-master and moosefs-chunkserver".to_owned(),
    })?;
    let here = data.display();
    let common = "WORKING_USER = root\nWORKING_GROUP = root\nNICE_LEVEL = 0\n";
    let files = [
        (
            "exports.cfg",
            "10.77.0.0/24 / rw,alldirs,admin,maproot=0:0\n".to_owned(),
        ),
        ("topology.cfg", String::new()),
        ("disks.cfg", format!("{here}/disk\n")),
        (
            "master.cfg",
            format!(
                "{common}DATA_PATH = {here}/master\nEXPORTS_FILENAME = {here}/exports.cfg\n\
                 TOPOLOGY_FILENAME = {here}/topology.cfg\nMATOML_LISTEN_HOST = {POOL}\n\
                 MATOCS_LISTEN_HOST = {POOL}\nMATOCL_LISTEN_HOST = {POOL}\n"
            ),
        ),
        (
            "chunkserver.cfg",
            format!(
                "{common}DATA_PATH = {here}/chunkserver\nHDD_CONF_FILENAME = {here}/disks.cfg\n\
                 MASTER_HOST = {POOL}\nCSSERV_LISTEN_HOST = {POOL}\n\
                 MASTER_RECONNECTION_DELAY = 1\nHDD_LEAVE_SPACE_DEFAULT = 64MiB\n"
            ),
        ),
    ];
    for (name, text) in files {
        let path = data.join(name);
        fs::write(&path, text).map_err(io_error("write", &path))?;
    }
    Ok(())
}

/// `3.0.117`, or nothing if the program doesn't say.
fn version() -> String {
    let said = super::output(&["mfsmaster", "-v"]).map(|out| out.stdout);
    let said = String::from_utf8(said.unwrap_or_default()).unwrap_or_default();
    let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    said.split_whitespace()
        .find(number)
        .unwrap_or_default()
        .to_owned()
}
