//! Modules that give the handle of a destroyed object to the next one, although a handle names one
//! object as long as the session lives (PKCS#11 v3.1 §2.3).

use std::{env, fs, os::unix::fs::PermissionsExt, path::Path};

use verification_signer::{
    key::{Algorithm, KeyId},
    timestamp::Timestamp,
    token::{Config, Error, GenerateRequest, OptionalAttribute, PinDesk, Token, TokenUri},
};

use super::this_binary;
use crate::support::{modules::Module, softhsm::PIN, tool};

/// Names the PIN's file to the inner process, which has the module's environment.
const INNER: &str = "TEST_PIN_FILE";

#[test]
fn a_destroyed_key_is_missing_even_when_a_tpm_gives_its_handle_to_another_object() {
    if let Ok(pin_file) = env::var(INNER) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(destroys_and_looks(Path::new(&pin_file)));
    }
    let directory = tempfile::tempdir().unwrap();
    let footing = Module::Tpm2.prepare(directory.path(), "handles");
    let pin_file = directory.path().join("pin");
    fs::write(&pin_file, PIN).unwrap();
    fs::set_permissions(&pin_file, fs::Permissions::from_mode(0o600)).unwrap();
    let name = "modules::handles::a_destroyed_key_is_missing_even_when_a_tpm_gives_its_handle_to_another_object";
    let mut inner = this_binary();
    inner.args(["--exact", name]).env(INNER, &pin_file).envs(footing.environment.iter().cloned());
    let output = inner.output().unwrap();
    let text = tool::text(&output.stdout) + &tool::text(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

async fn destroys_and_looks(pin_file: &Path) {
    let uri = TokenUri::parse("pkcs11:token=handles").unwrap();
    let mut config = Config::new(Module::Tpm2.path(), uri, pin_file.to_owned());
    config.omit = vec![OptionalAttribute::Decrypt, OptionalAttribute::Encrypt];
    config.algorithms = Some(vec![Algorithm::P256]);
    config.isolation = false;
    let pins = PinDesk::new(config.pin_source().unwrap(), &pin_file.with_file_name("state"));
    let token = Token::open(&config, pins).unwrap();
    let (first, second) = (vec![1; 16], vec![2; 16]);
    token.generate(request("s:1", &first)).await.unwrap();
    token.key_attributes(first.clone()).await.unwrap();
    assert!(token.destroy_private_key(first.clone()).await.unwrap());
    token.generate(request("s:2", &second)).await.unwrap();
    let looked = token.key_attributes(first).await;
    assert!(matches!(looked, Err(Error::KeyMissing { .. })), "{looked:?}");
    assert_eq!(token.key_attributes(second).await.unwrap().sign, Some(true));
}

fn request(id: &str, object_id: &[u8]) -> GenerateRequest {
    let begin = Timestamp::from_unix_seconds(1_800_000_000).unwrap();
    GenerateRequest {
        id: KeyId::parse(id).unwrap(),
        object_id: object_id.to_vec(),
        algorithm: Algorithm::P256,
        not_before: begin,
        not_after: begin.plus_seconds(86_400),
    }
}
