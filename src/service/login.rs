//! Logging in to registries, and out.

use std::os::fd::AsFd;

use crate::registry::{Kept, Server, forget_login, keep_login};
use crate::service::Strata;
use crate::service::error::Result;
use crate::sys;

impl Strata {
    /// Asks a registry whether it takes a login, and keeps it if so.
    pub fn log_in(&self, server: &Server, user: &str, password: &str) -> Result<Kept> {
        self.registry()?.check_login(server, user, password)?;
        Ok(keep_login(&self.options, server, user, password)?)
    }

    /// Asks a registry whether it takes the login that is kept for it, and returns its user; none
    /// where no login is kept.
    pub fn log_in_again(&self, server: &Server) -> Result<Option<String>> {
        Ok(self.registry()?.check_kept_login(server)?)
    }

    /// Forgets the login for a registry.
    pub fn log_out(&self, server: &Server) -> Result<()> {
        Ok(forget_login(&self.options, server)?)
    }
}

/// Keeps a terminal from showing what is typed, until what this returns is dropped.
pub fn hide_typing(terminal: &std::io::Stdin) -> Result<impl Drop + '_> {
    Ok(sys::hide_typing(terminal.as_fd())?)
}
