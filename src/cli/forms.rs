//! Values with a grammar of their own. Most belong to flags that have no effect here: they are checked all the
//! same, as etcd checks them, so that a slip is found where it was made and not on the day when it counts.

use super::go;
use super::url;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `*`, or URLs of any scheme that etcd knows.
    Origins,
    /// `simple`, or `jwt,option=value,...`.
    AuthToken,
    /// A duration, or a number without a unit (of hours or of revisions: the mode says).
    Retention,
    /// `Gate=true,...`.
    FeatureGates,
    /// Names of TLS cipher suites.
    CipherSuites,
    /// `default` alone, or files and streams.
    LogOutputs,
}

impl Form {
    /// Says what was expected where `value` does not have this form.
    pub fn check(self, value: &str) -> Result<(), String> {
        match self {
            Form::Origins if value == "*" => Ok(()),
            Form::Origins => items(value).try_for_each(url::check),
            Form::AuthToken => auth_token(value),
            Form::Retention => retention(value),
            Form::FeatureGates => feature_gates(value),
            Form::CipherSuites => items(value).try_for_each(|name| match CIPHER_SUITES.contains(&name) {
                true => Ok(()),
                false => Err(format!("names of TLS cipher suites, and {name:?} is none")),
            }),
            Form::LogOutputs => log_outputs(value),
        }
    }
}

/// The items of a comma-separated list; an empty text has none.
pub fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(move |_| !list.is_empty()).map(str::trim)
}

const SIGN_METHODS: [&str; 12] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384",
    "HS512",
];

/// The key files are not opened: nothing would be done with them.
fn auth_token(value: &str) -> Result<(), String> {
    let mut parts = value.split(',');
    let kind = parts.next().unwrap_or_default();
    let mut options: Vec<(&str, &str)> = Vec::new();
    for part in parts {
        match part.split_once('=') {
            Some((name, value))
                if !value.contains('=') && options.iter().all(|(known, _)| *known != name) =>
            {
                options.push((name, value));
            }
            _ => return Err(format!("options of the form name=value, each once, and {part:?} is none")),
        }
    }
    let option = |name: &str| options.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    match kind {
        "" | "simple" => Ok(()),
        "jwt" => {
            if !option("sign-method").is_some_and(|method| SIGN_METHODS.contains(&method)) {
                return Err(format!("jwt with sign-method= and one of {}", SIGN_METHODS.join(", ")));
            }
            if option("pub-key").or(option("priv-key")).is_none() {
                return Err("jwt with pub-key= or priv-key= and a file".into());
            }
            match option("ttl") {
                Some(ttl) if go::parse_duration(ttl).is_none() => {
                    Err("jwt with ttl= and a duration such as 5m".into())
                }
                _ => Ok(()),
            }
        }
        _ => Err("simple or jwt,option=value,...".into()),
    }
}

fn retention(value: &str) -> Result<(), String> {
    let is_number = value.parse::<i64>().is_ok_and(|number| number >= 0);
    if value.is_empty() || is_number || go::parse_duration(value).is_some() {
        return Ok(());
    }
    Err("a duration such as 30m, or a number of hours or of revisions".into())
}

/// Those of etcd 3.6 and 3.7; the first two stand for all of their kind.
const FEATURE_GATES: [&str; 11] = [
    "AllAlpha",
    "AllBeta",
    "StopGRPCServiceOnDefrag",
    "TxnModeWriteWithSharedBuffer",
    "InitialCorruptCheck",
    "CompactHashCheck",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
    "SetMemberLocalAddr",
    "FastLeaseKeepAlive",
    "PriorityRequest",
];

fn feature_gates(value: &str) -> Result<(), String> {
    let (mut checkpoint, mut persist) = (false, false);
    for item in items(value) {
        let Some((gate, on)) = item.split_once('=') else {
            return Err(format!("Gate=true or Gate=false, and {item:?} is neither"));
        };
        if !FEATURE_GATES.contains(&gate) {
            return Err(format!("feature gates of etcd, and {gate:?} is none"));
        }
        let Some(on) = go::parse_bool(on) else {
            return Err(format!("{gate}=true or {gate}=false"));
        };
        match gate {
            "AllAlpha" | "LeaseCheckpoint" => checkpoint = on,
            "LeaseCheckpointPersist" => persist = on,
            _ => {}
        }
    }
    match persist && !checkpoint {
        true => Err("LeaseCheckpoint=true beside LeaseCheckpointPersist=true".into()),
        false => Ok(()),
    }
}

fn log_outputs(value: &str) -> Result<(), String> {
    let outputs: Vec<&str> = items(value).collect();
    match outputs.as_slice() {
        [] => Err("default, stdout, stderr or files".into()),
        [_] => Ok(()),
        several if several.contains(&"default") => Err("default alone, or other outputs".into()),
        several if several.contains(&"") => Err("no empty output in the list".into()),
        _ => Ok(()),
    }
}

/// What `--log-rotation-config-json` must be: an object of lumberjack's settings. Flat, so that no parser is
/// needed: strings hold no commas or colons where anybody keeps logs.
pub fn check_rotation(value: &str) -> Result<(), String> {
    let expected = || "a JSON object such as {\"maxsize\": 100, \"compress\": false}".to_string();
    let inner =
        value.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(expected)?;
    let quoted = |text: &str| text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    for pair in items(inner.trim()) {
        let (name, value) = pair.split_once(':').ok_or_else(expected)?;
        let (name, value) = (name.trim(), value.trim());
        if !quoted(name) {
            return Err(expected());
        }
        let name = name.trim_matches('"');
        let good = match name.to_ascii_lowercase().as_str() {
            "maxsize" | "maxage" | "maxbackups" => value.parse::<i64>().is_ok(),
            "localtime" | "compress" => matches!(value, "true" | "false"),
            _ => quoted(value) || matches!(value, "true" | "false" | "null") || value.parse::<f64>().is_ok(),
        };
        if !good {
            return Err(format!("{}, and {value:?} cannot be {name}", expected()));
        }
    }
    Ok(())
}

/// The names that Go's TLS library knows, safe or not, and two older spellings that etcd takes.
const CIPHER_SUITES: [&str; 27] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];
