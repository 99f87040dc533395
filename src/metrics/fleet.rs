//! Where the listed hosts stand.

use super::{Each, Gauge, Label, Registry};
use crate::policy::event::Stage;
use crate::policy::progress::Standing;
use crate::site::trouble::Part;

impl Label for Stage {
    const NAME: &'static str = "stage";
    const ALL: &'static [Self] = Self::ALL;

    fn value(self) -> &'static str {
        self.name()
    }
}

impl Label for Standing {
    const NAME: &'static str = "state";
    const ALL: &'static [Self] = Self::ALL;

    fn value(self) -> &'static str {
        self.name()
    }
}

impl Label for Part {
    const NAME: &'static str = "part";
    const ALL: &'static [Self] = Self::ALL;

    fn value(self) -> &'static str {
        self.name()
    }
}

/// How many hosts are where, as [`crate::site::Site::measure`] last found it.
#[derive(Debug, Clone, Default)]
pub struct FleetMetrics {
    /// Listed hosts by the stage that their newest attempt is in; those never seen are in none.
    pub hosts: Each<Stage, Gauge>,
    /// Listed hosts by how they stand.
    pub standing: Each<Standing, Gauge>,
    /// Machines that are not listed.
    pub unlisted: Gauge,
    /// What is wrong with the daemon itself, by part.
    pub troubles: Each<Part, Gauge>,
    /// 1: the last edit of the inventory is served.
    pub reload_success: Gauge,
    /// When what is served was read, Unix time.
    pub reload_timestamp: Gauge,
    /// When the certificate of HTTPS ends, Unix time; 0 without HTTPS.
    pub certificate_end: Gauge,
}

impl FleetMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let hosts = "Listed hosts by the stage that their newest boot is in";
        registry.register("hosts", hosts, self.hosts.clone());
        let standing = "Listed hosts by how they stand";
        registry.register("hosts_standing", standing, self.standing.clone());
        let unlisted = "Machines that were seen and are not listed";
        registry.register("unlisted_machines", unlisted, self.unlisted.clone());
        let troubles = "What is wrong with the daemon itself now, by part";
        registry.register("troubles", troubles, self.troubles.clone());
        let reload = "1: the last edit of the inventory is served, 0: it was refused";
        registry.register(
            "inventory_reload_success",
            reload,
            self.reload_success.clone(),
        );
        let read = "When the inventory that is served was taken up, seconds since 1970";
        registry.register(
            "inventory_reload_timestamp_seconds",
            read,
            self.reload_timestamp.clone(),
        );
        let end = "When the certificate of HTTPS ends, seconds since 1970; 0 without HTTPS";
        registry.register(
            "tls_certificate_not_after_seconds",
            end,
            self.certificate_end.clone(),
        );
    }
}
