//! What was bound is served.

use std::net::TcpListener;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::services::Services;
use super::sockets::Sockets;
use super::{ServeError, TRANSFER_DRAIN, interfaces, observe, system};
use crate::dhcp::{self, Bound, Interface};
use crate::http::{self, App};
use crate::{nfs, syslog, tftp};

/// What each service needs to start.
pub(super) struct Starting<'a> {
    pub(super) app: &'a App,
    pub(super) services: &'a mut Services,
    pub(super) shutdown: &'a CancellationToken,
}

/// The ports of HTTP by what they are for.
struct HttpListeners {
    hosts: Vec<TcpListener>,
    /// Empty where the API shares the port of the boot files.
    api: Vec<TcpListener>,
    tls: Vec<TcpListener>,
}

impl Starting<'_> {
    pub(super) async fn all(
        &mut self,
        sockets: Sockets,
        exports: &nfs::Exports,
    ) -> Result<(), ServeError> {
        self.dhcp(sockets.dhcp)?;
        self.tftp(sockets.tftp);
        self.nfs(sockets.nfs, exports).await?;
        self.syslog(sockets.syslog)?;
        let router = http::router(self.app.clone());
        let listeners = HttpListeners {
            hosts: sockets.http,
            api: sockets.api,
            tls: sockets.https,
        };
        self.http(listeners, &router)?;
        self.control(sockets.control, router)
    }

    fn dhcp(&mut self, sockets: Vec<Bound>) -> Result<(), ServeError> {
        for bound in sockets {
            let socket = bound.start()?;
            let Interface { name, addresses } = &socket.interface;
            let addresses = interfaces::list(addresses);
            tracing::info!("DHCP on {name} ({addresses}), UDP ports 67 and 4011");
            let serving = dhcp::serve(socket, self.app.site.clone(), self.shutdown.clone());
            self.services.spawn("DHCP", serving);
        }
        Ok(())
    }

    fn tftp(&mut self, server: tftp::Server) {
        let desk = observe::Desk::new(&self.app.site);
        let transfers = server.run(desk.clone(), desk, self.shutdown.clone(), TRANSFER_DRAIN);
        self.services.spawn_fallible("TFTP", transfers);
    }

    async fn nfs(
        &mut self,
        listeners: Vec<TcpListener>,
        exports: &nfs::Exports,
    ) -> Result<(), ServeError> {
        let site = &self.app.site;
        for listener in listeners {
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(system("start NFS"))?;
            let observer = observe::nfs_observer(site);
            let server = nfs::Server::with_listener(listener, exports.clone(), observer)
                .await
                .map_err(ServeError::Nfs)?
                .allow(nfs::reserved_port)
                .counting(site.metrics.nfs.clone());
            site.enrolment.roots(server.connected());
            self.services
                .spawn("NFS", server.serve(self.shutdown.clone()));
        }
        Ok(())
    }

    fn syslog(&mut self, sockets: Vec<std::net::UdpSocket>) -> Result<(), ServeError> {
        let desk = syslog::Desk::new(self.app.site.clone(), self.app.consoles.clone());
        for socket in sockets {
            let socket = tokio::net::UdpSocket::from_std(socket).map_err(system("start syslog"))?;
            let serving = syslog::serve(socket, desk.clone(), self.shutdown.clone());
            self.services.spawn("syslog", serving);
        }
        Ok(())
    }

    fn http(&mut self, listeners: HttpListeners, all: &axum::Router) -> Result<(), ServeError> {
        // Where the API has a port of its own it is on no other, HTTPS or not.
        let hosts = if listeners.api.is_empty() {
            all.clone()
        } else {
            http::boot_router(self.app.clone())
        };
        let site = self.app.site.clone();
        let keys: http::Keys = Arc::new(move || Some(site.snapshot().tls.as_ref()?.config.clone()));
        // Whether there is TLS at all is as fixed as the ports: `moved_ports` sees to it.
        let has_tls = self.app.site.snapshot().tls.is_some();
        let api = http::api_router(self.app.clone());
        self.listen(listeners.hosts, &hosts, None)?;
        self.listen(listeners.api, &api, has_tls.then_some(&keys))?;
        self.listen(listeners.tls, &hosts, Some(&keys))
    }

    fn listen(
        &mut self,
        listeners: Vec<TcpListener>,
        router: &axum::Router,
        keys: Option<&http::Keys>,
    ) -> Result<(), ServeError> {
        for listener in listeners {
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(system("start HTTP"))?;
            let service = http::serve_tcp(
                listener,
                router.clone(),
                keys.cloned(),
                self.app.site.metrics.http.clone(),
                observe::http_observer(&self.app.site),
                self.shutdown.clone(),
            );
            self.services.spawn("HTTP", service);
        }
        Ok(())
    }

    fn control(
        &mut self,
        socket: std::os::unix::net::UnixListener,
        router: axum::Router,
    ) -> Result<(), ServeError> {
        let socket = tokio::net::UnixListener::from_std(socket)
            .map_err(system("start the control socket"))?;
        let metrics = self.app.site.metrics.http.clone();
        let control = http::serve_unix(socket, router, metrics, self.shutdown.clone());
        self.services.spawn("the control socket", control);
        Ok(())
    }
}
