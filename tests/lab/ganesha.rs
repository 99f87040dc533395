//! nfs-ganesha from Debian: the NFS server of production that needs no kernel of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{LabError, Result, io_error};
use super::process::Process;
use super::{Lab, Namespace, POOL};

const PROGRAM: &str = "/usr/bin/ganesha.nfsd";
/// For credentials of its callbacks; its service would make this directory (`RuntimeDirectory=`).
const RUNTIME: &str = "/var/run/ganesha";

/// An NFSv4 server at [`POOL`] with a root image (read-only) and a pool (read-write).
///
/// Fields drop in order: the server ends before its namespace goes.
#[derive(Debug)]
pub struct Ganesha {
    process: Process,
    namespace: Namespace,
    pool: PathBuf,
}

impl Ganesha {
    /// Where hosts find the root.
    pub const ROOT: &str = "/srv/roots/kvm-host";
    /// Where hosts find the pool.
    pub const IMAGES: &str = "/srv/images";

    /// Starts it on the root tree `root` and an empty pool, and waits until it serves.
    ///
    /// The pool lies under `data`, which is emptied; a file system with file handles is needed
    /// there and under `root` (`name_to_handle_at`: ext4, xfs and btrfs have them).
    pub fn start(lab: &Lab, root: &Path, data: &Path, logs: &Path) -> Result<Self> {
        if !Path::new(PROGRAM).exists() {
            return Err(LabError::Missing {
                what: PROGRAM.to_owned(),
                help: "install the packages nfs-ganesha and nfs-ganesha-vfs".to_owned(),
            });
        }
        let root = fs::canonicalize(root).map_err(io_error("follow", root))?;
        let pool = data.join("images");
        make_dirs(data, &pool)?;
        let config = data.join("ganesha.conf");
        fs::write(&config, configuration(&root, &pool, data))
            .map_err(io_error("write", &config))?;
        let namespace = lab.client("pool", "52:54:00:77:00:05")?;
        namespace.ip(&["addr", "add", &format!("{POOL}/24"), "dev", "eth0"])?;
        let mut process = spawn(&namespace, &config, data, logs)?;
        // Said after all sockets are bound and all exports are there.
        process.wait_for("NFS SERVER INITIALIZED", Duration::from_secs(60))?;
        Ok(Self {
            process,
            namespace,
            pool,
        })
    }

    /// Where it stands.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The pool as it lies on this machine.
    pub fn pool(&self) -> &Path {
        &self.pool
    }
}

fn make_dirs(data: &Path, pool: &Path) -> Result<()> {
    if data.exists() {
        fs::remove_dir_all(data).map_err(io_error("remove", data))?;
    }
    for dir in [pool, &data.join("recovery"), RUNTIME.as_ref()] {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
    }
    Ok(())
}

fn spawn(namespace: &Namespace, config: &Path, data: &Path, logs: &Path) -> Result<Process> {
    let show = |path: &Path| path.display().to_string();
    let (config, pid) = (show(config), show(&data.join("ganesha.pid")));
    let argv = [
        PROGRAM, "-F", "-f", &config, "-p", &pid, "-L", "STDOUT", "-N", "EVENT",
    ];
    Process::spawn(
        "ganesha.nfsd",
        namespace.name(),
        &argv,
        &logs.join("ganesha.log"),
    )
}

/// ganesha-core-config(8), ganesha-export-config(8). NFSv4 alone, so it needs no rpcbind.
///
/// Owners go as numbers: hosts have no ID mapper before they have a root. Graceless, because no
/// client of an earlier life can have state to reclaim.
fn configuration(root: &Path, pool: &Path, data: &Path) -> String {
    let core = format!(
        "NFS_CORE_PARAM {{ Protocols = 4; Bind_addr = {POOL}; NFS_Port = 2049; \
         Enable_NLM = false; Enable_RQUOTA = false; }}\n\
         NFSv4 {{ Graceless = true; Only_Numeric_Owners = true; RecoveryRoot = \"{}\"; }}\n",
        data.join("recovery").display()
    );
    core + &export(1, root, Ganesha::ROOT, "RO") + &export(2, pool, Ganesha::IMAGES, "RW")
}

fn export(id: u16, path: &Path, pseudo: &str, access: &str) -> String {
    format!(
        "EXPORT {{ Export_Id = {id}; Path = \"{}\"; Pseudo = \"{pseudo}\"; Access_Type = {access}; \
         Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP; \
         FSAL {{ Name = VFS; }} }}\n",
        path.display()
    )
}
