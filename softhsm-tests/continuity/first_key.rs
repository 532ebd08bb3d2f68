//! The first key is made on purpose, once; and the token it is made on is named without doubt.

use crate::support::site::Site;

#[test]
fn init_makes_exactly_one_key_however_often_it_runs() {
    let site = Site::new();
    for _ in 0..3 {
        site.run("init").with(0, "active key veid-signer-test:1 (P-256)");
        assert_eq!(site.pkcs11_tool().key_objects(), (1, 1));
    }
    site.run("init").with(0, "nothing to do: active key veid-signer-test:1");
}

#[test]
fn serve_makes_no_first_key_without_permission_and_says_what_to_do() {
    let site = Site::new();
    let serial = site.token.serial.clone();
    site.edit_config(&format!("first_key_on_token_serial = \"{serial}\""), "");
    for command in ["serve", "check", "serve"] {
        let refusal = site.refuse(command);
        refusal.with(78, "run `verification-signer init --config FILE`");
        refusal.with(78, &format!("key_policy.first_key_on_token_serial = \"{serial}\""));
    }
    assert_eq!(site.pkcs11_tool().objects().len(), 0);
    site.run("init").with(0, "active key");
    site.serve().unwrap();
    assert_eq!(site.pkcs11_tool().key_objects(), (1, 1));
}

#[test]
fn permission_for_another_serial_is_no_permission() {
    let site = Site::new();
    let serial = &site.token.serial;
    site.edit_config(&format!("serial = \"{serial}\""), "serial = \"0123456789abcdef\"");
    site.refuse("serve").with(78, &format!("first_key_on_token_serial = \"{serial}\""));
    assert_eq!(site.pkcs11_tool().objects().len(), 0);
}

#[test]
fn check_makes_nothing() {
    let site = Site::new();
    site.run("check").with(0, "active key     none yet");
    assert_eq!(site.pkcs11_tool().objects().len(), 0);
    assert!(!site.path("state").exists() && !site.path("audit/audit.log").exists());
}

#[test]
fn a_uri_that_two_tokens_match_is_refused() {
    let site = Site::new();
    site.token.add_token(&site.token.label);
    site.edit_config(&format!(";serial={}", site.token.serial), "");
    for command in ["serve", "check", "init"] {
        site.refuse(command).with(78, "2 tokens match pkcs11:token=unit-under-test: name one by its serial");
    }
    let listing = site.token.object_files();
    assert!(listing.is_empty(), "{listing:?}");
}

#[test]
fn a_uri_with_a_slot_number_is_refused() {
    let site = Site::new();
    for slot in ["slot-id=0", "slot-description=SoftHSM", "slot-manufacturer=SoftHSM"] {
        let site_uri = site.token.uri();
        site.edit_config(&site_uri, &format!("{site_uri};{slot}"));
        for command in ["serve", "check", "init"] {
            site.refuse(command).with(78, "the slot number changes between starts");
        }
        site.edit_config(&format!("{site_uri};{slot}"), &site_uri);
    }
}
