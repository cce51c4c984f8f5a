//! Why a handshake failed, in a sentence for the operator: what rustls's error means and, where that is not
//! obvious, what to do. Used by the errors of the broker's and the database's connections. Pure.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// The sentence for the rustls error among the sources of `error`; `None` if there is none.
pub fn handshake_reason(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<Error>() {
            return Some(reason(error));
        }
        // The error that an io::Error wraps is not its source.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(problem) => certificate_reason(problem),
        Error::AlertReceived(alert) => alert_reason(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS on this port".into()
        }
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "the server supports neither TLS 1.2 nor 1.3".into()
        }
        Error::NoCertificatesPresented => "the server sent no certificate".into(),
        other => other.to_string(),
    }
}

/// The problem with the server's certificate.
fn certificate_reason(problem: &CertificateError) -> String {
    match problem {
        CertificateError::Expired => "the server's certificate has expired".into(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the server's certificate has expired, on {}", day(not_after.as_secs()))
        }
        CertificateError::NotValidYet => {
            "the server's certificate is not valid yet; are the clocks right?".into()
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the server's certificate is not valid before {}; are the clocks right?",
            day(not_before.as_secs())
        ),
        CertificateError::UnknownIssuer => {
            "the server's certificate is not signed by a trusted authority".into()
        }
        CertificateError::BadSignature => {
            "the signature of the server's certificate is not valid".into()
        }
        CertificateError::NotValidForName => {
            "the server's certificate is for another host name".into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            if presented.is_empty() {
                format!(
                    "the server's certificate has no subject alternative name; {expected} is needed"
                )
            } else {
                format!("the server's certificate is for {}, not for {expected}", list(presented))
            }
        }
        CertificateError::Revoked => "the server's certificate has been revoked".into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not for server authentication".into()
        }
        other => match other.to_string() {
            text if text.contains("CaUsedAsEndEntity") => {
                "the server sent the certificate of an authority (CA:TRUE); it needs one of its own, signed by that authority"
                    .into()
            }
            text => format!("the server's certificate is not usable: {text}"),
        },
    }
}

/// The problem that the server reported.
fn alert_reason(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "the server requires a client certificate".into()
        }
        AlertDescription::UnknownCA => {
            "the server does not trust the authority of our client certificate".into()
        }
        AlertDescription::CertificateExpired => "our client certificate has expired".into(),
        AlertDescription::CertificateRevoked => "our client certificate has been revoked".into(),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => {
            format!("the server does not accept our client certificate ({alert:?})")
        }
        AlertDescription::HandshakeFailure => {
            "the server ended the handshake; it may require a client certificate".into()
        }
        AlertDescription::ProtocolVersion => "the server supports neither TLS 1.2 nor 1.3".into(),
        AlertDescription::UnrecognisedName => "the server does not know the host name (SNI)".into(),
        other => format!("the server ended the handshake ({other:?})"),
    }
}

/// `DnsName("a")` and the like, as rustls presents them.
fn list(names: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner);
        inner.trim_end_matches(')').trim_matches('"').to_owned()
    };
    names.iter().map(bare).collect::<Vec<_>>().join(", ")
}

fn day(unix_secs: u64) -> String {
    let moment = i64::try_from(unix_secs).ok().and_then(|it| jiff::Timestamp::from_second(it).ok());
    moment.map_or_else(|| "an unknown date".into(), |moment| moment.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_client_certificate_is_explained() {
        let alert = Error::AlertReceived(AlertDescription::CertificateRequired);
        assert_eq!(
            handshake_reason(&io::Error::other(alert)).unwrap(),
            "the server requires a client certificate"
        );
    }

    #[test]
    fn other_errors_have_no_reason() {
        assert_eq!(handshake_reason(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
    }
}
