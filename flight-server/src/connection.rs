//! A client's TCP connection, which knows the session that lives on it.
//!
//! Who comes without a token (allowed where there are no passwords) still has a session:
//! that of the connection. Every request carries a clone of [`ConnectInfo`]; when the
//! connection closes, the last clone goes and the session with it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::server::Connected;

use crate::session::ClientSession;

/// What a request knows of its connection.
#[derive(Clone, Default)]
pub(crate) struct ConnectInfo {
    pub peer: Option<SocketAddr>,
    /// Set by the first request without a token.
    pub session: Arc<OnceLock<Arc<ClientSession>>>,
}

pub(crate) struct Connection {
    stream: TcpStream,
    info: ConnectInfo,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        let info = ConnectInfo { peer: stream.peer_addr().ok(), ..ConnectInfo::default() };
        Self { stream, info }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
