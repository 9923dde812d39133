//! A Kafka broker with authentication: one more listener that needs a password, and one that needs a password over TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::free_port;
use super::kafka::{Broker, Client, Extras};
use super::open_folder;

/// The user that may do everything.
pub const USER: &str = "tidemill";
/// A user that may do nothing.
pub const VISITOR: &str = "visitor";
/// The password of both.
pub const PASSWORD: &str = "correct-horse-77777";
/// The password of the key stores, which exist only during a test.
const STORE: &str = "changeit";

/// A running broker with its certificate.
pub struct SecuredBroker {
    /// A client of the listener without authentication, for the test itself.
    pub client: Client,
    /// `host:port` of the listener that needs a password.
    pub passwords: String,
    /// `host:port` of the listener that needs a password over TLS.
    pub tls: String,
    folder: TempDir,
    _broker: Broker,
}

impl SecuredBroker {
    /// Starts the broker. Blocks.
    pub fn start() -> Self {
        let folder = open_folder();
        for name in ["broker", "stranger"] {
            certify(folder.path(), name);
        }
        let [passwords, tls] = [free_port(), free_port()];
        let extras = Extras {
            proxied: None,
            listeners: vec![("SASL_PLAINTEXT", passwords), ("SASL_SSL", tls)],
            properties: properties(folder.path()),
            format: [("SCRAM-SHA-256", USER), ("SCRAM-SHA-512", USER), ("SCRAM-SHA-256", VISITOR)]
                .iter()
                .flat_map(|(mechanism, user)| {
                    ["--add-scram".to_owned(), format!("{mechanism}=[name=\"{user}\",password=\"{PASSWORD}\"]")]
                })
                .collect(),
        };
        let broker = Broker::start_with(&extras);
        let address = |port| format!("127.0.0.1:{port}");
        Self { client: broker.client(), passwords: address(passwords), tls: address(tls), folder, _broker: broker }
    }

    /// The file with the certificate of `broker`, or of `stranger`, which did not sign the broker's certificate.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.folder.path().join(name).with_extension("pem")
    }
}

/// Makes a key and a self-signed certificate.
fn certify(folder: &Path, name: &str) {
    let keytool = |arguments: &[&str]| {
        let mut keytool = Command::new("keytool");
        keytool.args(arguments).args(["-alias", name, "-keystore", &format!("{name}.p12"), "-storepass", STORE]);
        let output = keytool.current_dir(folder).output().expect("keytool comes with Java");
        assert!(output.status.success(), "keytool {arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    };
    keytool(&[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-groupname",
        "secp256r1",
        "-dname",
        &format!("CN={name}"),
        "-ext",
        "san=ip:127.0.0.1",
        "-ext",
        "bc=ca:true",
        "-validity",
        "2",
        "-storetype",
        "PKCS12",
    ]);
    keytool(&["-exportcert", "-rfc", "-file", &format!("{name}.pem")]);
}

fn properties(folder: &Path) -> String {
    let mut properties = format!(
        "sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{USER}
ssl.keystore.type=PKCS12
ssl.keystore.location={}
ssl.keystore.password={STORE}
ssl.key.password={STORE}
",
        folder.join("broker.p12").display()
    );
    let module = "org.apache.kafka.common.security";
    for listener in ["sasl_plaintext", "sasl_ssl"] {
        for mechanism in ["scram-sha-256", "scram-sha-512"] {
            properties +=
                &format!("listener.name.{listener}.{mechanism}.sasl.jaas.config={module}.scram.ScramLoginModule required;\n");
        }
        properties += &format!(
            "listener.name.{listener}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required \
             user_{USER}=\"{PASSWORD}\" user_{VISITOR}=\"{PASSWORD}\";\n"
        );
    }
    properties
}
