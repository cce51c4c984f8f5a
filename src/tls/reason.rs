//! Why a handshake failed, in words for the person who set it up. Pure. rustls names what it found;
//! here stands what that means and, where it is not plain, what to do.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// What rustls had to say, wherever in the error it is hidden; none where TLS was not to blame.
#[must_use]
pub fn handshake_reason(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<Error>() {
            return Some(reason(error));
        }
        // What an io::Error was made of is not its source.
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
        Error::InvalidCertificate(problem) => of_its_certificate(problem),
        Error::AlertReceived(alert) => of_ours(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what answers there does not speak TLS on this port".into()
        }
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "the server speaks neither TLS 1.2 nor 1.3".into()
        }
        Error::NoCertificatesPresented => "the server shows no certificate".into(),
        other => other.to_string(),
    }
}

/// What we found wrong with the server's certificate.
fn of_its_certificate(problem: &CertificateError) -> String {
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
            "the server's certificate is signed by nobody whom we trust".into()
        }
        CertificateError::BadSignature => {
            "the server's certificate is not signed by whom it says".into()
        }
        CertificateError::NotValidForName => {
            "the server's certificate is for another name than the one that we connect to".into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            if presented.is_empty() {
                format!(
                    "the server's certificate names no host as its subject alternative name; {expected} is needed"
                )
            } else {
                format!("the server's certificate is for {}, not for {expected}", list(presented))
            }
        }
        CertificateError::Revoked => "the server's certificate was revoked".into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not made for servers".into()
        }
        other => match other.to_string() {
            text if text.contains("CaUsedAsEndEntity") => {
                "the server shows the certificate of an authority (CA:TRUE); it takes one of its own, signed by that"
                    .into()
            }
            text => format!("the server's certificate is not usable: {text}"),
        },
    }
}

/// What the server found wrong with us.
fn of_ours(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "the server asks for a client certificate".into()
        }
        AlertDescription::UnknownCA => {
            "the server does not trust whoever signed our client certificate".into()
        }
        AlertDescription::CertificateExpired => "our client certificate has expired".into(),
        AlertDescription::CertificateRevoked => "our client certificate was revoked".into(),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => {
            format!("the server does not take our client certificate ({alert:?})")
        }
        AlertDescription::HandshakeFailure => {
            "the server ended the handshake; it may ask for a client certificate".into()
        }
        AlertDescription::ProtocolVersion => "the server speaks neither TLS 1.2 nor 1.3".into(),
        AlertDescription::UnrecognisedName => {
            "the server does not know the name that we connect to".into()
        }
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
    moment.map_or_else(|| "a day beyond reckoning".into(), |moment| moment.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::{ServerName, UnixTime};
    use std::time::Duration;

    fn found(problem: CertificateError) -> String {
        let error = io::Error::new(io::ErrorKind::InvalidData, Error::InvalidCertificate(problem));
        handshake_reason(&error).unwrap()
    }

    #[test]
    fn each_failure_is_a_sentence() {
        let at = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        assert_eq!(
            found(CertificateError::ExpiredContext { time: at(2), not_after: at(1) }),
            "the server's certificate has expired, on 1970-01-01T00:00:01Z"
        );
        let expected = ServerName::try_from("broker.example").unwrap();
        let presented = vec![r#"DnsName("other.example")"#.to_owned()];
        assert_eq!(
            found(CertificateError::NotValidForNameContext { expected, presented }),
            "the server's certificate is for other.example, not for broker.example"
        );
        assert!(found(CertificateError::UnknownIssuer).contains("nobody whom we trust"));
        let alert = Error::AlertReceived(AlertDescription::CertificateRequired);
        assert_eq!(
            handshake_reason(&io::Error::other(alert)).unwrap(),
            "the server asks for a client certificate"
        );
    }

    #[test]
    fn what_is_no_matter_of_tls_is_none() {
        assert_eq!(handshake_reason(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
    }
}
