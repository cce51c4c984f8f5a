//! The sockets that the API listens on. Called once, by `bind`. A client whose machine has gone is disconnected
//! by the kernel, whatever was sent to it; `write_guard` disconnects clients that read too little.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted, as when many dashboards reconnect at once.
const BACKLOG: i32 = 1_024;

/// One for each address that the name resolves to; addresses that cannot be bound are left out if one can.
pub(super) fn bind(address: &str, write_timeout: Duration) -> io::Result<Vec<TcpListener>> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut listeners = Vec::new();
    for address in address.to_socket_addrs()? {
        match listener(address, write_timeout) {
            Ok(listener) => listeners.push(listener),
            Err(error) => refused = error,
        }
    }
    if listeners.is_empty() { Err(refused) } else { Ok(listeners) }
}

/// Checks that the name resolves to addresses to listen on.
///
/// # Errors
/// When it does not.
pub fn check_address(address: &str) -> Result<(), String> {
    let example = "it takes host:port, as in 127.0.0.1:8080";
    match address.to_socket_addrs() {
        _ if address.starts_with(':') => Err(example.into()),
        Ok(addresses) if addresses.len() > 0 => Ok(()),
        Ok(_) => Err(format!("{example}; the name stands for no address")),
        Err(error) => Err(format!("{example} ({error})")),
    }
}

fn listener(address: SocketAddr, write_timeout: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Otherwise a restarted service would wait for connections of its predecessor in TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it. It also covers a client whose receive window is closed.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(write_timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
