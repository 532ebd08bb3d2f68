//! Certificates and keys are exchanged while clients are busy, and no request of theirs fails.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use crate::support::{curl::Curl, eventually, guarded::Guarded};

/// Also when the test fails meanwhile: its clients must not run for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many requests each client has sent with success, while `meanwhile` runs.
fn under_load(clients: &[Curl], meanwhile: impl FnOnce(&dyn Fn() -> usize)) -> usize {
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // A new connection and handshake each time.
                    match client.send("GET", "/api/v1/keys", None) {
                        Ok(answer) => assert_eq!(answer.status, 200, "{}", answer.text()),
                        Err(error) => panic!("{error:?}"),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stop = Stop(&stop);
        meanwhile(&|| done.load(Ordering::Relaxed));
    });
    done.into_inner()
}

/// The serial number of the certificate that the server shows.
fn serial(guarded: &Guarded) -> String {
    let shown = crate::support::tool::output("openssl", &["s_client", "-connect", guarded.tls_address()], &[], b"");
    let pem = crate::support::tool::text(&shown.stdout);
    let output = crate::support::tool::output("openssl", &["x509", "-noout", "-serial"], &[], pem.as_bytes());
    crate::support::tool::text(&output.stdout)
}

#[test]
fn a_new_certificate_is_shown_and_no_request_fails_meanwhile() {
    let guarded = Guarded::new();
    let clients = vec![guarded.certified("auditor"), guarded.certified("operator"), guarded.certified("security")];
    let served = under_load(&clients, |done| {
        for _ in 0..3 {
            let (before, so_far) = (serial(&guarded), done());
            // As people do it: the certificate first, the key a moment later.
            let new = guarded.authority.issue("new-server", "DNS:localhost,IP:127.0.0.1", "30");
            let server = guarded.leaf("server");
            std::fs::rename(new.certificate, server.certificate).unwrap();
            eventually("requests in between", || (done() > so_far + 20).then_some(()));
            std::fs::rename(new.key, server.key).unwrap();
            guarded.appliance().signal("HUP");
            eventually("the new certificate is shown", || (serial(&guarded) != before).then_some(()));
        }
    });
    println!("{served} requests");
    assert!(served > 100, "only {served} requests");
}

#[test]
fn keys_are_exchanged_and_no_request_fails_meanwhile() {
    let guarded = Guarded::new();
    let mut old = guarded.key("auditor", &[]);
    let mut served = 0;
    for _ in 0..3 {
        let new = guarded.key("auditor", &[]);
        // Both are good at once: every client has time to change over.
        let both = [guarded.plain().bearer(&old), guarded.tls().bearer(&new), guarded.plain().bearer(&new)];
        served += under_load(&both, |done| {
            eventually("requests with both", || (done() > 100).then_some(()));
        });
        let changed = [guarded.tls().bearer(&new), guarded.plain().bearer(&new)];
        served += under_load(&changed, |_| {
            guarded.run_key(&["revoke", old.split('_').nth(1).unwrap()]);
            eventually("the old key is refused", || {
                (guarded.plain().bearer(&old).get("/api/v1/keys").status == 401).then_some(())
            });
        });
        old = new;
    }
    println!("{served} requests");
    assert!(served > 300, "only {served} requests");
}
