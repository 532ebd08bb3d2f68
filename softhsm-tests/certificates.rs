//! A CA certifies a key: the request comes from the token, the chain goes back to it.

use std::fs;

use crate::support::{appliance::Appliance, tool};

#[test]
fn a_chain_issued_by_a_ca_is_stored_on_the_token_and_served() {
    let appliance = Appliance::dev();
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let openssl = |arguments: &[&str]| tool::run("openssl", arguments, &[]);
    let path = "/api/v1/keys/veid-signer-dev:1/certificate.pem";
    let self_signed = appliance.get(path).text();

    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=Test CA",
        "-keyout",
        &at("ca.key"),
        "-out",
        &at("ca.pem"),
    ]);
    fs::write(at("csr.pem"), appliance.get("/api/v1/keys/veid-signer-dev:1/csr.pem").body).unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        &at("csr.pem"),
        "-CA",
        &at("ca.pem"),
        "-CAkey",
        &at("ca.key"),
        "-days",
        "30",
        "-out",
        &at("leaf.pem"),
    ]);
    let chain = [fs::read(at("leaf.pem")).unwrap(), fs::read(at("ca.pem")).unwrap()].concat();

    let put = |body: &[u8]| appliance.put_bytes(path, "application/pem-certificate-chain", body);
    for (refused, why) in [
        (fs::read(at("ca.pem")).unwrap(), "not for this key"),
        ([fs::read(at("leaf.pem")).unwrap(), self_signed.clone().into_bytes()].concat(), "issued by"),
        (b"nonsense".to_vec(), "PEM"),
        (Vec::new(), "PEM"),
    ] {
        let answer = put(&refused);
        assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid-field"));
        assert!(answer.text().contains(why), "{}", answer.text());
    }
    assert_eq!(appliance.get(path).text(), self_signed);

    assert_eq!(put(&chain).status, 200);
    let home_of_token = appliance.home.clone();
    fs::write(at("served.pem"), appliance.get(path).body).unwrap();
    assert_eq!(fs::read_to_string(at("served.pem")).unwrap().matches("BEGIN CERTIFICATE").count(), 2);
    openssl(&["verify", "-CAfile", &at("ca.pem"), &at("served.pem")]);

    // It lives on the token: a restart serves it too, and pkcs11-tool lists it.
    let temporary = appliance.stop_and_keep();
    let appliance = Appliance::dev_in(&home_of_token);
    assert_eq!(appliance.get(path).body, fs::read(at("served.pem")).unwrap());
    drop(appliance);
    drop(temporary);
}
