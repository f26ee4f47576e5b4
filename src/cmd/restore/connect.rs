//! How the mail server is reached: settings and environment to the client's options.

use std::path::PathBuf;

use super::Options;
use crate::config::{Settings, SyncClientSettings, SyncTls};
use crate::sync::client::{
    AddressError, Certificates, Compress, Destination, Login, Options as ClientOptions, Password,
    Place, Protocol, Timeouts, TlsMode, Verify,
};

/// Name and password, for those who do not want them in a file. Never on the command line:
/// everybody can see that.
const ENV_AUTHNAME: &str = "CYRBK_SYNC_AUTHNAME";
const ENV_PASSWORD: &str = "CYRBK_SYNC_PASSWORD";

/// Why it is not known how the mail server is reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("{}: no name of a server", .0.display())]
    NoText(std::ffi::OsString),
}

/// The client's options; `settings` are those of the channel, if one is named.
pub(super) fn client_options(
    options: &Options,
    settings: &Settings,
) -> Result<ClientOptions, ConnectError> {
    let text =
        options.server.to_str().ok_or_else(|| ConnectError::NoText(options.server.clone()))?;
    let mut destination = Destination::parse(text)?;
    let sync = &settings.sync_client;
    if let Place::Host { port, .. } = &mut destination.place
        && port.is_none()
    {
        port.clone_from(&sync.port);
    }
    let tls = &settings.tls;
    let own = tls.client_cert.clone().filter(|path| path.as_os_str() != "disabled");
    let mut client = ClientOptions::new(destination);
    client.protocol = if sync.try_imap { Protocol::Auto } else { Protocol::Csync };
    client.tls = match sync.tls {
        SyncTls::Off => TlsMode::Never,
        SyncTls::Optional => TlsMode::IfOffered,
        SyncTls::Require => TlsMode::Required,
        SyncTls::Immediate => TlsMode::OnConnect,
    };
    client.certificates = Certificates {
        verify: verify(tls.server_ca_file.clone(), tls.server_ca_dir.clone()),
        own: own.map(|cert| {
            let key = tls.client_key.clone().unwrap_or_else(|| cert.clone());
            (cert, key)
        }),
    };
    client.login = login(sync, &|name| std::env::var(name).ok());
    client.compress = if options.compression { Compress::Required } else { Compress::IfOffered };
    client.timeouts = Timeouts {
        login: settings.client_timeout,
        reply: settings.sync_timeout,
        ..Timeouts::default()
    };
    Ok(client)
}

/// A site that names its roots wants the server's certificate checked.
fn verify(file: Option<PathBuf>, dir: Option<PathBuf>) -> Verify {
    match (file, dir) {
        (None, None) => Verify::Nothing,
        (file, dir) => Verify::Roots { file, dir },
    }
}

/// Who logs in: the environment goes before the configuration.
fn login(sync: &SyncClientSettings, env: &dyn Fn(&str) -> Option<String>) -> Option<Login> {
    let password = env(ENV_PASSWORD)
        .or_else(|| sync.password.as_ref().map(|password| password.expose().to_owned()))?;
    let name = env(ENV_AUTHNAME).or_else(|| sync.authname.clone())?;
    Some(Login {
        authname: name,
        authzid: None,
        password: Password::new(password),
        mechanisms: sync.mechanisms.clone(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::options::Words;
    use super::*;

    fn options(server: &str, conf: &str, channel: Option<&str>) -> ClientOptions {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("imapd.conf");
        std::fs::write(&path, format!("configdirectory: {}\n{conf}", dir.path().display()))
            .unwrap();
        let settings = Settings::load(&path, channel.unwrap_or("restore")).unwrap();
        let options = Options::new(server.into(), "alice".into(), Words::All);
        client_options(&options, &settings).unwrap()
    }

    #[test]
    fn the_configuration_fills_in() {
        let conf = "sync_port: 2005\nsync_authname: a\nsync_password: p\nsync_try_imap: no\n\
                    sync_timeout: 60s\nclient_timeout: 5s\nfar_sync_authname: f\n";
        let client = options("mail", conf, None);
        assert_eq!(client.destination.to_string(), "mail:2005");
        assert_eq!((client.protocol, client.compress), (Protocol::Csync, Compress::IfOffered));
        assert_eq!(client.login.unwrap().authname, "a");
        assert_eq!(client.timeouts.login.as_secs(), 5);
        assert_eq!(client.timeouts.reply.as_secs(), 60);
        let client = options("mail:csync", conf, Some("far"));
        assert_eq!(client.destination.to_string(), "mail:csync");
        assert_eq!(client.login.unwrap().authname, "f");
        // All of it is the channel's, and nothing restore's own.
        let far = "far_tls_server_ca_file: /far.pem\nfar_sync_timeout: 70s\nsync_timeout: 60s\n\
                   far_client_timeout: 6s\nrestore_client_timeout: 5s\n";
        let client = options("mail", far, Some("far"));
        let roots = Verify::Roots { file: Some("/far.pem".into()), dir: None };
        assert_eq!(client.certificates.verify, roots);
        assert_eq!(client.timeouts.reply.as_secs(), 70);
        assert_eq!(client.timeouts.login.as_secs(), 6);
        assert!(options("mail", "", None).login.is_none());
        let tls = options("mail", "cyrbk_sync_tls: require\n", None).tls;
        assert_eq!(tls, TlsMode::Required);
        let own = "restore_sync_authname: r\nsync_authname: a\nsync_password: p\n";
        assert_eq!(options("mail", own, None).login.unwrap().authname, "r");
    }

    #[test]
    fn the_environment_goes_first() {
        let sync = SyncClientSettings { authname: Some("a".into()), ..Default::default() };
        let env = |name: &str| (name == ENV_PASSWORD).then(|| "secret".to_owned());
        let login = login(&sync, &env).unwrap();
        assert_eq!((login.authname.as_str(), login.password.expose()), ("a", "secret"));
        let none = |_: &str| None::<String>;
        assert!(super::login(&sync, &none).is_none());
    }
}
