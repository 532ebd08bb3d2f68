//! A token that looks empty for a moment, as SoftHSM2's do while others log in: looked at once, it is
//! indistinguishable from a new one.

use std::{fs, path::PathBuf};

use crate::support::{eventually, site::Site, tool};

/// Renames every object file of the token, which hides the objects.
fn hide(files: &[PathBuf]) {
    for file in files {
        fs::rename(file, file.with_extension("hidden")).unwrap();
    }
}

fn show(files: &[PathBuf]) {
    for file in files {
        fs::rename(file.with_extension("hidden"), file).unwrap();
    }
}

/// Starts `init` while the objects are hidden and shows them after the first look at the token. How
/// it ended; `None` when this machine was too slow to show them in time.
fn init_on_a_flickering_token(site: &Site, calls: impl Fn(&str) -> usize) -> Option<(i32, String)> {
    let files = site.token.object_files();
    hide(&files);
    let child = site.spawn("init");
    let pid = child.id().to_string();
    // The first look ends with C_Finalize, and the process waits a little before the next.
    eventually("the first look", || (calls("C_Finalize") > 0 || !running(&pid)).then_some(()));
    let _ = tool::output("kill", &["-s", "STOP", &pid], &[], b"");
    let looks = calls("C_Initialize");
    show(&files);
    let _ = tool::output("kill", &["-s", "CONT", &pid], &[], b"");
    let output = child.wait_with_output().unwrap();
    (looks < 3).then(|| (output.status.code().unwrap_or(-1), tool::text(&output.stdout) + &tool::text(&output.stderr)))
}

fn running(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_token_that_is_empty_at_the_first_look_only_gets_no_key() {
    for _ in 0..10 {
        let site = Site::with_key();
        let listing = site.run("init").output;
        let fingerprint = &listing.split_once("fingerprint ").unwrap().1[..64];
        fs::remove_file(site.marker()).unwrap();
        site.forget_trail();
        let (site, spy) = site.spied();
        let files = site.token.object_files();
        let Some((code, output)) = init_on_a_flickering_token(&site, |function| spy.calls(function)) else { continue };
        assert_eq!(code, 0, "{output}");
        // It found the key that had been there all the time.
        assert!(output.contains(fingerprint), "{output} instead of {listing}");
        assert_eq!(site.token.object_files(), files);
        assert_eq!(site.pkcs11_tool().key_objects(), (1, 1));
        return;
    }
    panic!("ten times, this machine was too slow to show the objects again between two looks");
}
