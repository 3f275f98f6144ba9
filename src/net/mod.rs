pub mod settings;

pub use settings::Settings;

/// Runs a server until it is told to stop. Stands here so that the command line can be built before the
/// event loop is.
pub fn serve(_settings: &Settings) -> crate::base::Result<()> {
    Err(crate::base::Error::Refused("this build has no server".into()))
}
