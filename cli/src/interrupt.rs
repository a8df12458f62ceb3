//! Ctrl-C and SIGTERM: asked nicely, a command finishes what it is at.

use anyhow::Result;
use futures::FutureExt;
use tokio::signal;
use tokio::task::unconstrained;

/// Exit code of a program that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

/// The next Ctrl-C. From the first call on, Ctrl-C no longer ends the process by itself.
pub async fn ctrl_c() {
    // Where signals can't be had, nothing is ever interrupted.
    if signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
type Signal = signal::unix::Signal;
#[cfg(windows)]
type Signal = signal::windows::CtrlC;

/// Ctrl-C from when this is made, also while nobody waits for it: one that comes while rows
/// are written is found afterwards. [`ctrl_c`] would not know of it.
pub struct Interrupts(Option<Signal>);

impl Interrupts {
    /// Listens from now on. Where signals can't be had, nothing is ever interrupted.
    pub fn listen() -> Self {
        #[cfg(unix)]
        let signal = signal::unix::signal(signal::unix::SignalKind::interrupt());
        #[cfg(windows)]
        let signal = signal::windows::ctrl_c();
        Self(signal.ok())
    }

    /// The next one, or one that came meanwhile.
    pub async fn next(&mut self) {
        // However busy this task is: what keeps it busy is what shall be interrupted.
        let came = match &mut self.0 {
            Some(signal) => unconstrained(signal.recv()).await,
            None => None,
        };
        if came.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether one has come meanwhile.
    pub fn came(&mut self) -> bool {
        self.next().now_or_never().is_some()
    }
}

/// The next Ctrl-C or SIGTERM.
#[cfg(unix)]
pub async fn stop() -> Result<()> {
    let mut term = signal::unix::signal(signal::unix::SignalKind::terminate())?;
    tokio::select! {
        () = ctrl_c() => {}
        _ = term.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
pub async fn stop() -> Result<()> {
    ctrl_c().await;
    Ok(())
}

/// Finishes something that was asked to stop, unless it is asked again.
pub async fn finish<T>(work: impl Future<Output = T>) -> Result<T> {
    tokio::select! {
        done = work => Ok(done),
        stopped = stop() => {
            stopped?;
            anyhow::bail!("interrupted before the epochs in flight were finished; \
                they will be run again from their recorded plans")
        }
    }
}
