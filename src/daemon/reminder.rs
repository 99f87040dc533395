//! What is said again every day until somebody sees to it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often.
pub(super) const DAILY: Duration = Duration::from_secs(24 * 3600);

/// Asks for a warning each time that `every` has passed, and says it if there is one, until `shutdown`.
pub(super) async fn remind(
    every: Duration,
    warning: impl Fn() -> Option<String>,
    say: impl Fn(&str),
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        if let Some(warning) = warning() {
            say(&warning);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[tokio::test]
    async fn it_is_said_each_time_as_long_as_there_is_reason() {
        let (asked, mut was_asked) = unbounded_channel();
        let (said, mut was_said) = unbounded_channel();
        let (ends, shutdown) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let soon = ends.clone();
        let warning = move || {
            asked.send(()).unwrap();
            let soon = soon.load(Ordering::Relaxed);
            soon.then(|| "the certificate ends".to_owned())
        };
        let say = move |text: &str| said.send(text.to_owned()).unwrap();
        let every = Duration::from_millis(1);
        let reminding = tokio::spawn(remind(every, warning, say, shutdown.clone()));
        for _ in 0..3 {
            was_asked.recv().await.unwrap();
        }
        assert!(was_said.try_recv().is_err(), "it is young");
        ends.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(was_said.recv().await.unwrap(), "the certificate ends");
        }
        shutdown.cancel();
        reminding.await.unwrap();
    }
}
