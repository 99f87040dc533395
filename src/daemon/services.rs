//! The daemon's services, watched: one that ends before it is told to ends the daemon, which is restarted then.
//! A daemon without its TFTP that goes on saying `ready` would be found by the hosts, and last by the operator.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};

use super::ServeError;

type Outcome = Result<(), String>;

/// Services under way.
#[derive(Debug, Default)]
pub(super) struct Services {
    running: JoinSet<Outcome>,
    names: HashMap<Id, &'static str>,
}

impl Services {
    /// Runs a service that ends at shutdown alone.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        service: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn_fallible(name, async {
            service.await;
            Ok::<(), Infallible>(())
        });
    }

    /// The same of one that may find that it can't serve.
    pub(super) fn spawn_fallible<E: Error>(
        &mut self,
        name: &'static str,
        service: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let task = async { service.await.map_err(|error| error.to_string()) };
        let id = self.running.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until `stop` is done.
    ///
    /// # Errors
    /// [`ServeError::Ended`] where a service ends before.
    pub(super) async fn run(&mut self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        tokio::select! {
            () = stop => Ok(()),
            Some(ended) = self.running.join_next_with_id() => Err(self.fault(ended)),
        }
    }

    fn fault(&self, ended: Result<(Id, Outcome), JoinError>) -> ServeError {
        let (id, why) = match ended {
            Ok((id, Ok(()))) => (id, "it returned though nothing told it to".to_owned()),
            Ok((id, Err(error))) => (id, error),
            Err(error) => (error.id(), error.to_string()),
        };
        let service = self.names.get(&id).copied().unwrap_or("a service");
        ServeError::Ended { service, why }
    }

    /// Lets all that were told to end finish, for at most `limit`; false if some did not. The rest is cut off.
    pub(super) async fn drain(&mut self, limit: Duration) -> bool {
        let all = async {
            while let Some(ended) = self.running.join_next_with_id().await {
                if !matches!(ended, Ok((_, Ok(())))) {
                    tracing::error!("while ending: {}", self.fault(ended));
                }
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn a_service_that_panics_ends_the_daemon_with_its_name() {
        let (mut services, shutdown) = (Services::default(), CancellationToken::new());
        services.spawn("DHCP", shutdown.clone().cancelled_owned());
        services.spawn("TFTP", async { panic!("no such block") });
        let fault = services.run(pending()).await.unwrap_err().to_string();
        assert!(
            fault.starts_with("TFTP ended by a fault of ours: "),
            "{fault}"
        );
        assert!(fault.contains("no such block"), "{fault}");
        assert!(
            fault.ends_with("; the daemon ends so that it is restarted"),
            "{fault}"
        );
        shutdown.cancel();
        assert!(
            services.drain(Duration::from_secs(60)).await,
            "the others finish"
        );
    }

    #[tokio::test]
    async fn a_service_that_cannot_begin_or_returns_does_too() {
        let mut services = Services::default();
        services.spawn_fallible("TFTP", async { Err(std::io::Error::other("no epoll")) });
        let fault = services.run(pending()).await.unwrap_err().to_string();
        assert!(
            fault.contains("TFTP") && fault.contains("no epoll"),
            "{fault}"
        );
        services.spawn("NFS", async {});
        let fault = services.run(pending()).await.unwrap_err().to_string();
        assert!(
            fault.contains("NFS") && fault.contains("returned"),
            "{fault}"
        );
    }

    #[tokio::test]
    async fn a_signal_ends_it_without_a_fault() {
        let (mut services, shutdown) = (Services::default(), CancellationToken::new());
        services.spawn("HTTP", shutdown.clone().cancelled_owned());
        assert!(services.run(async {}).await.is_ok());
        shutdown.cancel();
        assert!(services.drain(Duration::from_secs(60)).await);
    }
}
