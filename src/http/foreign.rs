//! Pages of other sites. A browser shows client certificates, and the address that it is at, to us
//! whichever page asks it to; changes that a page of another site asks for are refused. Programs that are
//! no browsers say nothing of pages.

use actix_web::{HttpRequest, http::header};

/// Whether a browser says that the page which asks is not ours: by Fetch Metadata, and where it sends
/// none (without TLS, beyond loopback) by the origin.
pub(super) fn is_foreign(request: &HttpRequest) -> bool {
    let headers = request.headers();
    if let Some(site) = headers.get("sec-fetch-site") {
        // "none": the person asked, by the address bar.
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let own = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let own = own.or_else(|| headers.get(header::HOST).map(header::HeaderValue::as_bytes));
    let place = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, place)| place.as_bytes());
    place.is_none() || place != own
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn foreign(headers: &[(&str, &str)]) -> bool {
        let request = headers.iter().fold(TestRequest::post(), |request, header| request.insert_header(*header));
        is_foreign(&request.to_http_request())
    }

    #[test]
    fn a_page_of_another_site_is_told_from_ours_and_from_programs() {
        let host = ("host", "signer.test:8443");
        for (headers, expected) in [
            (&[host][..], false),
            (&[host, ("sec-fetch-site", "same-origin")], false),
            (&[host, ("sec-fetch-site", "none")], false),
            (&[host, ("sec-fetch-site", "same-site")], true),
            (&[host, ("sec-fetch-site", "cross-site")], true),
            (&[host, ("sec-fetch-site", "cross-site"), ("origin", "https://signer.test:8443")], true),
            (&[host, ("origin", "https://signer.test:8443")], false),
            (&[host, ("origin", "https://signer.test")], true),
            (&[host, ("origin", "https://evil.test")], true),
            (&[host, ("origin", "null")], true),
            (&[("origin", "https://evil.test")], true),
        ] {
            assert_eq!(foreign(headers), expected, "{headers:?}");
        }
    }
}
