//! When the files of `[tls]` stop being good: an alert asks days before.

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_cert::{Certificate, crl::CertificateList, der::Decode, time::Time};

/// What ends, and when: seconds of Unix time.
pub type Expiry = (&'static str, i64);

fn seconds(time: Time) -> Option<i64> {
    i64::try_from(time.to_unix_duration().as_secs()).ok()
}

/// The end of whichever certificate ends first.
pub(super) fn of_certificates(what: &'static str, chain: &[CertificateDer<'_>]) -> Option<Expiry> {
    let end = |der: &CertificateDer<'_>| {
        let certificate = Certificate::from_der(der).ok()?;
        seconds(certificate.tbs_certificate().validity().not_after)
    };
    Some((what, chain.iter().filter_map(end).min()?))
}

/// When the list that is due first is due; afterwards it lets nobody in.
pub(super) fn of_lists(what: &'static str, lists: &[CertificateRevocationListDer<'_>]) -> Option<Expiry> {
    let due = |der: &CertificateRevocationListDer<'_>| {
        let list: CertificateList = CertificateList::from_der(der.as_ref()).ok()?;
        seconds(list.tbs_cert_list.next_update?)
    };
    Some((what, lists.iter().filter_map(due).min()?))
}
