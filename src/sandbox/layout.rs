//! Where things lie in a scratch directory, and where its server listens.
//!
//! A newcomer would put the tablespaces into the data directory; pgBackRest refuses that.

use std::path::{Path, PathBuf};

use super::SandboxError;

/// The port in the name of the socket; nobody listens on a network.
pub const PORT: u16 = 5432;
/// The longest path of a socket, without the closing zero.
const LONGEST_SOCKET: usize = 107;
/// Where things lie in a scratch directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below a directory.
    ///
    /// # Errors
    /// When the socket's path would be longer than the kernel takes.
    pub fn new(root: impl Into<PathBuf>) -> Result<Layout, SandboxError> {
        let layout = Layout { root: root.into() };
        let socket = layout.sockets().join(format!(".s.PGSQL.{PORT}"));
        if socket.as_os_str().len() > LONGEST_SOCKET { Err(SandboxError::LongSocket(socket)) } else { Ok(layout) }
    }

    /// The scratch directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The restored cluster.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The restored tablespaces.
    pub fn tablespaces(&self) -> PathBuf {
        self.root.join("ts")
    }

    /// Empty directories that stand in for production's tablespaces.
    pub fn stand_ins(&self) -> PathBuf {
        self.root.join("in")
    }

    /// The fetched WAL.
    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// Logs and locks of the tool that restores.
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// The generated configuration.
    pub fn conf(&self) -> PathBuf {
        self.root.join("conf")
    }

    /// The directory of the socket.
    pub fn sockets(&self) -> PathBuf {
        self.root.join("s")
    }

    /// All directories.
    pub fn directories(&self) -> [PathBuf; 7] {
        [self.data(), self.tablespaces(), self.stand_ins(), self.wal(), self.work(), self.conf(), self.sockets()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_the_kernel_would_not_take_is_refused() {
        let long = format!("/{}", "x".repeat(91));
        assert!(Layout::new(&long).is_err());
        assert!(Layout::new(&long[..91]).is_ok());
    }
}
