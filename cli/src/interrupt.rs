//! Ctrl-C and SIGTERM: asked nicely, a command finishes what it is at.

use anyhow::Result;
use tokio::signal;

/// Exit code of a program that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

/// The next Ctrl-C. From the first call on, Ctrl-C no longer ends the process by itself.
pub async fn ctrl_c() {
    // Where signals can't be had, nothing is ever interrupted.
    if signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
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
