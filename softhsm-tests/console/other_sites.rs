//! Pages of other sites. A browser shows a client certificate to us whichever page asks it to, and where
//! nobody has to sign in nothing has to be shown.

use serde_json::json;

use super::states;
use crate::support::{appliance::Appliance, curl::Curl, guarded::Guarded};

#[test]
fn what_a_page_of_another_site_asks_for_changes_nothing_and_is_on_record() {
    let appliance = Appliance::dev();
    let curl = Curl::at(&appliance.api);
    let rotate = json!({ "reason": "test", "initiated_by": "test" });
    for header in
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: https://evil.test", "Origin: null"]
    {
        // Those without a body are what a plain form on any page can send.
        for (path, body) in
            [("/api/v1/keys/rotate", Some(&rotate)), ("/api/v1/audit/rotate", None), ("/api/v1/sign/test", None)]
        {
            let answer = curl.clone().header(header).send("POST", path, body).unwrap();
            assert_eq!((answer.status, &*answer.problem()), (403, "other-site"), "{header} {path}");
        }
    }
    assert_eq!(states(&appliance), ["active"]);
    let denied = appliance.audit_events("access_denied");
    assert!(
        !denied.is_empty()
            && denied.iter().all(|record| record["details"]["reason"].as_str().unwrap().contains("another site"))
    );
    // Our own page, and programs.
    let own = format!("Origin: {}", appliance.api);
    for header in ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none", &own, "X-Nothing: x"] {
        let answer = curl.clone().header(header).send("POST", "/api/v1/sign/test", None).unwrap();
        assert_eq!(answer.status, 200, "{header}: {}", answer.text());
    }
    assert_eq!(curl.header("Sec-Fetch-Site: cross-site").get("/healthz").status, 200);
}

#[test]
fn a_client_certificate_does_not_make_a_page_of_another_site_ours() {
    let guarded = Guarded::new();
    let operator = guarded.certified("operator");
    let rotate = json!({ "reason": "test", "initiated_by": "test" });
    let answer = operator.clone().header("Sec-Fetch-Site: cross-site").post("/api/v1/keys/rotate", &rotate);
    assert_eq!((answer.status, &*answer.problem()), (403, "other-site"));
    assert_eq!(operator.get("/api/v1/rotations").ok(), json!([]));
    // HTTP/2 names the host otherwise.
    let own = format!("Origin: https://{}", guarded.tls_address());
    assert_eq!(operator.header(&own).post("/api/v1/keys/rotate", &rotate).status, 201);
}
