//! The sockets that the API listens on. Called once, by `bind`. Promises that a client that takes
//! nothing of what is sent to it is cut off by the system: the server cannot, as it waits for room
//! to write, and what writes nothing is asked for nothing.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted: a fleet of dashboards that comes back at once.
const BACKLOG: i32 = 1_024;

/// One for each address that the name stands for; those that cannot be had are left out, if one can.
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

/// Whether this names addresses to listen on, as the service itself would look them up.
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
    // Else a service that is started again would wait for the connections of the one before.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Those that it accepts have it from it. It counts while the client's window is closed, too.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(write_timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
