//! Certificates, their revocation, and tokens, all made by openssl in a directory of a test's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::tool;

/// An authority with its directory.
pub struct Authority {
    directory: PathBuf,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Leaf {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

fn openssl(arguments: &[&str]) {
    tool::run("openssl", arguments, &[]);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Authority {
    pub fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let authority = Self { directory: directory.to_owned() };
        let (key, certificate) = (authority.path("ca.key"), authority.certificate());
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", text(&key)]);
        openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            text(&key),
            "-subj",
            "/CN=test authority",
            "-days",
            "30",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
            "-out",
            text(&certificate),
        ]);
        fs::write(authority.path("index.txt"), "").unwrap();
        fs::write(authority.path("crlnumber"), "01\n").unwrap();
        let config = format!(
            "[ca]\ndefault_ca=x\n[x]\ndir={0}\ndatabase={0}/index.txt\ncrlnumber={0}/crlnumber\ndefault_md=sha256\n",
            directory.display()
        );
        fs::write(authority.path("ca.cnf"), config).unwrap();
        authority.write_crl("30");
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub fn crl(&self) -> PathBuf {
        self.path("ca.crl")
    }

    /// A certificate with these alternative names, e.g. `DNS:a.test`, valid for so many days.
    pub fn issue(&self, name: &str, alternative_names: &str, days: &str) -> Leaf {
        let leaf = Leaf { certificate: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) };
        let (request, extensions) = (self.path(&format!("{name}.csr")), self.path(&format!("{name}.ext")));
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", text(&leaf.key)]);
        openssl(&["req", "-new", "-key", text(&leaf.key), "-subj", &format!("/CN={name}"), "-out", text(&request)]);
        fs::write(&extensions, format!("subjectAltName={alternative_names}\nextendedKeyUsage=serverAuth,clientAuth\n"))
            .unwrap();
        openssl(&[
            "x509",
            "-req",
            "-in",
            text(&request),
            "-CA",
            text(&self.certificate()),
            "-CAkey",
            text(&self.path("ca.key")),
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            text(&extensions),
            "-out",
            text(&leaf.certificate),
        ]);
        leaf
    }

    /// Revokes a certificate and writes the list anew.
    pub fn revoke(&self, leaf: &Leaf) {
        self.ca(&["-revoke", text(&leaf.certificate)]);
        self.write_crl("30");
    }

    /// The list of revoked certificates, due again after so many days; put in place at once.
    pub fn write_crl(&self, days: &str) {
        self.write_list("-crldays", days);
    }

    /// The same, due after so many seconds.
    pub fn write_crl_for_seconds(&self, seconds: &str) {
        self.write_list("-crlsec", seconds);
    }

    fn write_list(&self, unit: &str, due: &str) {
        let new = self.path("new.crl");
        self.ca(&["-gencrl", unit, due, "-out", text(&new)]);
        fs::rename(new, self.crl()).unwrap();
    }

    fn ca(&self, arguments: &[&str]) {
        let (config, certificate, key) = (self.path("ca.cnf"), self.certificate(), self.path("ca.key"));
        let common = ["ca", "-config", text(&config), "-cert", text(&certificate), "-keyfile", text(&key), "-batch"];
        openssl(&[&common[..], arguments].concat());
    }
}

/// An identity provider: an RSA key, and a P-256 key.
pub struct Provider {
    directory: PathBuf,
    p256: p256::ecdsa::SigningKey,
}

pub const ISSUER: &str = "https://id.test";
pub const AUDIENCE: &str = "verification-signer";

impl Provider {
    pub fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let p256 = p256::ecdsa::SigningKey::from_slice(&[0x42; 32]).unwrap();
        let provider = Self { directory: directory.to_owned(), p256 };
        openssl(&[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
            "-out",
            text(&provider.rsa_key()),
        ]);
        let public = text(&directory.join("rsa.pub")).to_owned();
        openssl(&["pkey", "-in", text(&provider.rsa_key()), "-pubout", "-out", &public]);
        provider.write_set();
        provider
    }

    fn rsa_key(&self) -> PathBuf {
        self.directory.join("rsa.key")
    }

    /// The RSA public key as everybody can have it.
    pub fn rsa_public_pem(&self) -> Vec<u8> {
        fs::read(self.directory.join("rsa.pub")).unwrap()
    }

    pub fn set(&self) -> PathBuf {
        self.directory.join("jwks.json")
    }

    fn write_set(&self) {
        let modulus = tool::run("openssl", &["rsa", "-in", text(&self.rsa_key()), "-noout", "-modulus"], &[]);
        let n = hex::decode(modulus.trim().strip_prefix("Modulus=").unwrap()).unwrap();
        let point = p256::ecdsa::VerifyingKey::from(&self.p256).to_sec1_point(false);
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let set = json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": b64(&n), "e": "AQAB" },
            { "kty": "EC", "kid": "ec", "use": "sig", "crv": "P-256", "x": b64(point.x().unwrap()), "y": b64(point.y().unwrap()) },
            { "kty": "oct", "kid": "shared", "use": "sig", "alg": "HS256", "k": b64(b"a secret that everybody knows") },
        ]});
        fs::write(self.set(), set.to_string()).unwrap();
    }

    /// A token signed with the RSA key as RS256, or with the other as ES256, whatever its header says.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = if header["kid"] == "ec" {
            use p256::ecdsa::signature::Signer;
            let signature: p256::ecdsa::Signature = self.p256.sign(message.as_bytes());
            signature.to_bytes().to_vec()
        } else {
            let key = self.rsa_key();
            tool::output("openssl", &["dgst", "-sha256", "-sign", text(&key)], &[], message.as_bytes()).stdout
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A good token of this subject.
    pub fn token(&self, subject: &str) -> String {
        self.sign(&json!({ "alg": "ES256", "kid": "ec" }), &claims(subject))
    }
}

/// Good claims.
pub fn claims(subject: &str) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": now + 3600, "iat": now })
}

/// Header and claims, with no signature yet.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}
