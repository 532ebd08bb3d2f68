//! How the page is served: from the binary alone, guarded, and not at all where it is not wanted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{appliance::Appliance, curl::Curl, signer::first_key_here, softhsm::SoftHsm};

fn assets() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/console/assets");
    let files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 15);
    files
        .iter()
        .map(|file| (file.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(file).unwrap()))
        .collect()
}

#[test]
fn every_file_is_served_guarded_and_known_again() {
    let appliance = Appliance::dev();
    let curl = Curl::at(&appliance.api);
    let mut paths: Vec<_> = assets().into_iter().map(|(name, text)| (format!("/console/{name}"), text)).collect();
    let page = paths.iter().find(|(path, _)| path.ends_with("index.html")).unwrap().1.clone();
    paths.push(("/console".into(), page));
    for (path, text) in paths {
        let answer = curl.get(&path);
        assert_eq!((answer.status, answer.text() == text), (200, true), "{path}");
        let expected = match path.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(answer.header("content-type"), expected, "{path}");
        for (name, value) in [
            (
                "content-security-policy",
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
        assert!(answer.headers.get("set-cookie").is_none());
        let tag = answer.header("etag").to_owned();
        let again = curl.clone().header(&format!("If-None-Match: \"x\", W/{tag}")).get(&path);
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, &*tag), "{path}");
        assert_eq!(curl.clone().header("If-None-Match: \"x\"").get(&path).status, 200, "{path}");
        let head = curl.clone().with(&["--head"]).send("HEAD", &path, None).unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-length"), text.len().to_string(), "{path}");
    }
    for path in ["/console/", "/console/nothing.js", "/console/..%2fmod.rs", "/console/assets/main.js"] {
        assert_eq!(curl.get(path).status, 404, "{path}");
    }
    // Everything else stays as strict as it was.
    let other = curl.get("/api/v1/me");
    assert_eq!(other.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
    assert_eq!(other.header("cache-control"), "no-store");
}

/// What would let text become markup or code, or leave the origin, is not in the files at all.
#[test]
fn the_files_have_no_way_out_and_no_way_in() {
    for (name, text) in assets() {
        let code = text.replace("http://www.w3.org/2000/svg", "");
        for never in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "new Function",
            "setTimeout(\"",
            "localStorage",
            "sessionStorage",
            "document.cookie",
            "indexedDB",
            "http://",
            "https://",
            "//cdn",
            "@import",
            "url(",
            "<style",
            " style=",
            "javascript:",
            "srcdoc",
            "postMessage",
            "<script>",
        ] {
            assert!(!code.contains(never), "{name}: {never}");
        }
        let inline_handler = code.split_whitespace().any(|word| word.starts_with("on") && word.contains("=\""));
        assert!(name != "index.html" || !inline_handler, "{name}");
    }
}

#[test]
fn the_configuration_can_leave_it_out() {
    let token = SoftHsm::new();
    let home = tempfile::tempdir().unwrap();
    let config = token.config(home.path(), &first_key_here(&token, "", "[fleet]\nsingle = true\n"));
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[http]", "[http]\nconsole = false")).unwrap();
    let appliance = Appliance::serve(&token, &config).unwrap_or_else(|(status, log)| panic!("{status}: {log}"));
    for path in ["/console", "/console/main.js", "/console/index.html"] {
        let answer = appliance.get(path);
        assert_eq!((answer.status, &*answer.problem()), (404, "not-found"), "{path}");
    }
    assert_eq!(appliance.get("/api/v1/me").status, 200);
}
