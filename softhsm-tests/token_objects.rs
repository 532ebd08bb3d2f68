//! What security staff find on the token, with their own tools, and what nobody can take from it.

use cryptoki::{
    error::RvError,
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::Session,
};

use crate::support::{
    appliance::Appliance,
    own_process,
    pkcs11_tool::{self, field},
    site::Site,
    softhsm::SIGNER,
    tool,
};

const APPLICATION: &str = "verification-signer";

#[test]
fn pkcs11_tool_lists_key_certificate_and_ledger_of_a_running_appliance() {
    let site = Site::new();
    let appliance = site.serve().unwrap();
    let key = appliance.get("/api/v1/keys/active").ok();
    let tool = site.pkcs11_tool();
    let label = format!("{SIGNER}:1 P-256");

    let private = tool.object(&["Private Key Object; EC", &label]);
    assert_eq!(field(&private, "label"), label);
    assert_eq!(field(&private, "ID"), key["token"]["object_id"]);
    assert_eq!(field(&private, "Usage"), "sign");
    assert_eq!(field(&private, "Access"), "sensitive, always sensitive, never extractable, local");

    let public = tool.object(&["Public Key Object; EC", &label]);
    assert_eq!(field(&public, "ID"), field(&private, "ID"));
    assert_eq!(field(&public, "Usage"), "verify");

    let certificate = tool.object(&["Certificate Object; type = X.509 cert", &label]);
    assert_eq!(field(&certificate, "ID"), field(&private, "ID"));
    assert!(field(&certificate, "subject").contains(&format!("CN={SIGNER}:1")), "{certificate}");

    for record in ["ledger 000001 key-generated", "ledger 000002 key-activated"] {
        let data = tool.object(&["Data object", &format!("'{SIGNER} {record}'")]);
        assert_eq!(field(&data, "application"), format!("'{APPLICATION}'"));
        assert_eq!(field(&data, "flags"), "private");
    }
    assert_eq!(tool.objects().len(), 5, "{:#?}", tool.objects());
}

#[test]
fn the_audit_key_is_made_as_strictly_and_is_no_key_of_the_ledger() {
    let site = Site::new();
    let appliance = site.serve().unwrap();
    let pair = site.pkcs11_tool().audit_key();
    assert_eq!(pair.len(), 2, "{pair:#?}");
    let private = pair.iter().find(|object| object.starts_with("Private Key Object")).unwrap();
    assert_eq!(field(private, "label"), format!("{SIGNER} audit 1 Ed25519"));
    assert_eq!(field(private, "Usage"), "sign");
    assert_eq!(field(private, "Access"), "sensitive, always sensitive, never extractable, local");
    let keys = appliance.get("/api/v1/keys").text() + &appliance.get("/.well-known/jwks.json").text();
    assert!(!keys.contains(field(private, "ID")) && !keys.contains("Ed25519"), "{keys}");
    // A restart uses the same.
    appliance.stop();
    site.serve().unwrap().stop();
    assert_eq!(site.pkcs11_tool().audit_key(), pair);
}

#[test]
fn a_dev_token_looks_the_same() {
    let appliance = Appliance::dev();
    let tool = appliance.dev_token();
    let private = tool.object(&["Private Key Object; EC", "veid-signer-dev:1 P-256"]);
    assert_eq!(field(&private, "Usage"), "sign");
    assert_eq!(field(&private, "Access"), "sensitive, always sensitive, never extractable, local");
    tool.object(&["Data object", "'veid-signer-dev ledger 000001 key-generated'"]);
    tool.object(&["Data object", "'veid-signer-dev ledger 000002 key-activated'"]);
    assert_eq!(tool.key_objects(), (1, 1));
}

#[test]
fn without_a_login_neither_private_key_nor_ledger_is_listed() {
    let site = Site::with_key();
    let listing = pkcs11_tool::objects(&site.pkcs11_tool().public(&["--list-objects"]));
    assert_eq!(listing.len(), 3, "{listing:#?}");
    assert_eq!(
        listing.iter().filter(|object| object.starts_with("Public Key Object")).count(),
        2,
        "its own and the audit key's"
    );
    assert!(listing.iter().any(|object| object.starts_with("Certificate Object")));
}

#[test]
fn openssl_reads_a_ledger_record() {
    let site = Site::with_key();
    for (record, times, contents) in [
        ("000001 key-generated", 3, &[SIGNER, "init", "veid-signer-test:1 P-256", "prime256v1", "OBJECT"][..]),
        ("000002 key-activated", 2, &[SIGNER, "init"]),
    ] {
        let file = site.path("record.der");
        let file = file.to_str().unwrap();
        let label = format!("{SIGNER} ledger {record}");
        let read = ["--read-object", "--type", "data", "--label", &label, "--application-label", APPLICATION];
        site.pkcs11_tool().logged_in(&[&read[..], &["-o", file]].concat());
        let text = tool::run("openssl", &["asn1parse", "-inform", "DER", "-in", file], &[]);
        for part in contents {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert_eq!(text.matches("GENERALIZEDTIME").count(), times, "{text}");
    }
}

#[test]
fn pkcs11_tool_cannot_read_the_private_key() {
    let site = Site::with_key();
    let tool = site.pkcs11_tool();
    let private = tool.object(&["Private Key Object"]);
    let id = field(&private, "ID");
    let stolen = site.path("stolen");
    let output = tool.attempt(&["--read-object", "--type", "privkey", "--id", id, "-o", stolen.to_str().unwrap()]);
    assert!(!stolen.exists() && output.stdout.is_empty(), "{}", tool::text(&output.stdout));
    // It says that it cannot read private keys at all; what the token itself says is the next test.
    assert!(tool::text(&output.stderr).contains("reading private keys not"), "{}", tool::text(&output.stderr));
    let public = site.path("public");
    tool.logged_in(&["--read-object", "--type", "pubkey", "--id", id, "-o", public.to_str().unwrap()]);
    assert!(!std::fs::read(public).unwrap().is_empty());
}

/// The CKR code of a call that must fail.
fn refusal<T>(what: &str, result: Result<T, cryptoki::error::Error>) -> RvError {
    match result {
        Err(cryptoki::error::Error::Pkcs11(code, _)) => code,
        Err(other) => panic!("{what}: {other}"),
        Ok(_) => panic!("{what} was allowed"),
    }
}

/// The one object of this class of an attestation key.
fn only(session: &Session, class: ObjectClass) -> ObjectHandle {
    let mut found = session.find_objects(&[Attribute::Class(class)]).unwrap();
    found.retain(|object| match session.get_attributes(*object, &[AttributeType::Label]).unwrap().as_slice() {
        [Attribute::Label(label)] => label.starts_with(format!("{SIGNER}:").as_bytes()),
        other => panic!("{other:?}"),
    });
    assert_eq!(found.len(), 1, "{class}");
    found[0]
}

#[test]
fn whoever_has_the_pin_still_cannot_change_copy_wrap_or_read_the_private_key() {
    own_process::on_token(
        "token_objects::whoever_has_the_pin_still_cannot_change_copy_wrap_or_read_the_private_key",
        || Site::with_key().into_token(),
        |session| {
            let key = only(session, ObjectClass::PRIVATE_KEY);
            for change in [
                Attribute::Extractable(true),
                Attribute::Sensitive(false),
                Attribute::Modifiable(true),
                Attribute::Copyable(true),
                Attribute::Decrypt(true),
                Attribute::Unwrap(true),
                Attribute::Derive(true),
                Attribute::Private(false),
                Attribute::Label(b"mine".to_vec()),
                Attribute::Id(vec![1]),
            ] {
                let code = refusal(&format!("{change:?}"), session.update_attributes(key, &[change]));
                assert_eq!(code, RvError::ActionProhibited);
            }
            for template in [
                vec![],
                vec![Attribute::Extractable(true)],
                vec![Attribute::Extractable(true), Attribute::Sensitive(false), Attribute::Token(false)],
            ] {
                let code = refusal(&format!("a copy with {template:?}"), session.copy_object(key, &template));
                assert_eq!(code, RvError::ActionProhibited);
            }
            // A key of the thief's own, made to wrap others: it can wrap an extractable key, so what
            // stops it is our key and not the wrapping.
            let thief = [Attribute::Token(false), Attribute::Wrap(true), Attribute::ValueLen(32.into())];
            let thief = session.generate_key(&Mechanism::AesKeyGen, &thief).unwrap();
            let loose = [Attribute::Token(false), Attribute::Extractable(true), Attribute::ValueLen(32.into())];
            let loose = session.generate_key(&Mechanism::AesKeyGen, &loose).unwrap();
            session.wrap_key(&Mechanism::AesKeyWrap, thief, loose).unwrap();
            for mechanism in [Mechanism::AesKeyWrap, Mechanism::AesKeyWrapPad] {
                let code = refusal("wrapping", session.wrap_key(&mechanism, thief, key));
                assert_eq!(code, RvError::KeyUnextractable);
            }
            // SoftHSM2 answers CKR_ATTRIBUTE_SENSITIVE, which leaves the value out.
            for secret in [AttributeType::Value, AttributeType::PrivateExponent] {
                assert!(session.get_attributes(key, &[secret]).unwrap_or_default().is_empty(), "{secret}");
            }
            // Nothing above has made it a key that does more than sign.
            assert_eq!(
                session.get_attributes(key, &[AttributeType::Extractable, AttributeType::Sensitive]).unwrap(),
                [Attribute::Extractable(false), Attribute::Sensitive(true)]
            );
            session.sign(&Mechanism::Ecdsa, key, &[7; 32]).unwrap();
        },
    );
}

#[test]
fn ledger_records_cannot_be_changed_in_place() {
    own_process::on_token(
        "token_objects::ledger_records_cannot_be_changed_in_place",
        || Site::with_key().into_token(),
        |session| {
            let records = session.find_objects(&[Attribute::Class(ObjectClass::DATA)]).unwrap();
            assert_eq!(records.len(), 2);
            for record in records {
                for change in [Attribute::Value(vec![0]), Attribute::Label(b"x".to_vec()), Attribute::Private(false)] {
                    let code = refusal(&format!("{change:?}"), session.update_attributes(record, &[change]));
                    assert_eq!(code, RvError::ActionProhibited);
                }
            }
        },
    );
}

#[test]
fn the_validity_dates_stand_on_the_public_key() {
    own_process::on_token(
        "token_objects::the_validity_dates_stand_on_the_public_key",
        || {
            let site = Site::with_key();
            // The inner process sees only the token: tell it the days through a label of a data object.
            let key = site.serve().unwrap().get("/api/v1/keys/active").ok();
            let day = |name: &str| key[name].as_str().unwrap()[..10].replace('-', "");
            site.pkcs11_tool().logged_in(&[
                "--write-object",
                "/dev/null",
                "--type",
                "data",
                "--label",
                &format!("{} {}", day("not_before"), day("expires_at")),
                "--application-label",
                "expected days",
            ]);
            site.into_token()
        },
        |session| {
            let expected = session.find_objects(&[Attribute::Application(b"expected days".to_vec())]).unwrap()[0];
            let expected = session.get_attributes(expected, &[AttributeType::Label]).unwrap();
            let public = only(session, ObjectClass::PUBLIC_KEY);
            let dates = session.get_attributes(public, &[AttributeType::StartDate, AttributeType::EndDate]).unwrap();
            let [Attribute::StartDate(start), Attribute::EndDate(end)] = &dates[..] else { panic!("{dates:?}") };
            let digits = |date: &cryptoki::types::Date| [&date.year[..], &date.month, &date.day].concat();
            assert_eq!(expected, [Attribute::Label([digits(start), digits(end)].join(&b' '))]);
        },
    );
}
