//! The PKCS#11 modules that can be had here. Tests run on SoftHSM2; the matrix (`modules/`) runs
//! some of them again, unchanged, with `TEST_MODULE` naming another.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{
    eventually,
    softhsm::{MODULE, PIN, SO_PIN},
    tool,
};

/// Names the module to the tests that the matrix starts.
pub const CHOICE: &str = "TEST_MODULE";

/// A module that can be had here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    SoftHsm2,
    /// p11-kit's remoting in front of SoftHSM2.
    P11KitRemote,
    /// tpm2-pkcs11 on a simulated TPM (swtpm) behind its resource manager (tpm2-abrmd).
    Tpm2,
    Kryoptic,
}

/// What a token of a module stands on. Its daemons end with it.
pub struct Footing {
    pub environment: Vec<(&'static str, PathBuf)>,
    _daemons: Vec<Daemon>,
}

impl Footing {
    /// Tokens that are there already.
    pub fn softhsm2(directory: &Path) -> Self {
        Self { environment: vec![("SOFTHSM2_CONF", directory.join("softhsm2.conf"))], _daemons: Vec::new() }
    }
}

impl Module {
    /// All but the one that every test runs on anyway.
    pub const OTHERS: [Self; 3] = [Self::P11KitRemote, Self::Tpm2, Self::Kryoptic];

    /// The module's name, and that of its profile in hsm-config.
    pub fn name(self) -> &'static str {
        match self {
            Self::SoftHsm2 => "softhsm2",
            Self::P11KitRemote => "p11-kit-remote",
            Self::Tpm2 => "tpm2",
            Self::Kryoptic => "kryoptic",
        }
    }

    /// The one that this process tests.
    pub fn chosen() -> Self {
        let Ok(name) = std::env::var(CHOICE) else { return Self::SoftHsm2 };
        Self::OTHERS.into_iter().find(|module| module.name() == name).unwrap()
    }

    pub fn path(self) -> PathBuf {
        let installed = Path::new("/usr/lib/x86_64-linux-gnu/pkcs11");
        match self {
            Self::SoftHsm2 => MODULE.into(),
            Self::P11KitRemote => installed.join("p11-kit-client.so"),
            Self::Tpm2 => installed.join("libtpm2_pkcs11.so"),
            Self::Kryoptic => in_repository("target/kryoptic/debug/libkryoptic_pkcs11.so"),
        }
    }

    /// The lines that the module's profile has in `[token]`, but for what names this one token.
    pub fn token_lines(self) -> String {
        if self == Self::SoftHsm2 {
            // Its profile states the defaults.
            return String::new();
        }
        let profile = fs::read_to_string(in_repository(&format!("hsm-config/{}.toml", self.name()))).unwrap();
        let mut table = profile.parse::<toml::Table>().unwrap();
        let token = table["token"].as_table_mut().unwrap();
        for own in ["module", "uri", "pin_file"] {
            token.remove(own);
        }
        toml::to_string(token).unwrap()
    }

    /// Initialises an empty token with this label in a directory.
    pub fn prepare(self, directory: &Path, label: &str) -> Footing {
        match self {
            Self::SoftHsm2 => softhsm2(directory, label),
            Self::P11KitRemote => p11_kit(directory, label),
            Self::Tpm2 => tpm2(directory, label),
            Self::Kryoptic => kryoptic(directory, label),
        }
    }
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn run(program: &str, arguments: &[&str], environment: &[(&'static str, PathBuf)]) {
    let borrowed: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_path())).collect();
    tool::run(program, arguments, &borrowed);
}

fn softhsm2(directory: &Path, label: &str) -> Footing {
    let footing = Footing::softhsm2(directory);
    let arguments = ["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN];
    run("softhsm2-util", &arguments, &footing.environment);
    footing
}

/// The server has a process for each client, and each of these loads SoftHSM2.
fn p11_kit(directory: &Path, label: &str) -> Footing {
    let served = softhsm2(directory, label);
    let socket = directory.join("p11-kit.socket");
    let server = daemon("p11-kit")
        .args(["server", "--foreground", "--provider", MODULE, "--name"])
        .arg(&socket)
        .arg(format!("pkcs11:token={label}"))
        .envs(served.environment.iter().cloned())
        .spawn();
    let daemon = Daemon(server.unwrap());
    eventually("p11-kit serves", || UnixStream::connect(&socket).ok());
    let address = PathBuf::from(format!("unix:path={}", socket.display()));
    Footing { environment: vec![("P11_KIT_SERVER_ADDRESS", address)], _daemons: vec![daemon] }
}

fn tpm2(directory: &Path, label: &str) -> Footing {
    let at = |name: &str| directory.join(name).display().to_string();
    for name in ["tpm", "store"] {
        fs::create_dir(directory.join(name)).unwrap();
    }
    let start = |program: &str, arguments: &[String], environment: &[(&str, PathBuf)]| {
        let mut command = daemon(program);
        command.args(arguments).envs(environment.iter().cloned()).stderr(Stdio::null());
        Daemon(command.spawn().unwrap())
    };
    let state = format!("--tpmstate=dir={}", at("tpm"));
    let control = format!("--ctrl=type=unixio,path={}", at("swtpm.ctrl"));
    let server = format!("--server=type=unixio,path={}", at("swtpm"));
    let ready = "--flags=not-need-init,startup-clear".to_owned();
    let swtpm = start("swtpm", &["socket".into(), "--tpm2".into(), state, control, server, ready], &[]);
    let bus = format!("unix:path={}", at("bus"));
    let bus_options = ["--session", "--nofork", "--nopidfile"].map(ToOwned::to_owned);
    let dbus = start("dbus-daemon", &[&bus_options[..], &[format!("--address={bus}")]].concat(), &[]);
    // Not a connection to swtpm: it serves one, the first.
    eventually("swtpm is there", || directory.join("swtpm").exists().then_some(()));
    eventually("dbus listens", || UnixStream::connect(directory.join("bus")).ok());

    let environment = vec![
        ("DBUS_SESSION_BUS_ADDRESS", PathBuf::from(bus)),
        ("TPM2TOOLS_TCTI", "tabrmd:bus_type=session".into()),
        ("TPM2_PKCS11_TCTI", "tabrmd:bus_type=session".into()),
        ("TPM2_PKCS11_STORE", directory.join("store")),
        ("TPM2_PKCS11_LOG_LEVEL", "0".into()),
    ];
    let manager_options = ["--session", "--allow-root", "--flush-all"].map(ToOwned::to_owned);
    let manager = [&manager_options[..], &[format!("--tcti=swtpm:path={}", at("swtpm"))]].concat();
    let abrmd = start("tpm2-abrmd", &manager, &environment);
    let borrowed: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_path())).collect();
    eventually("the resource manager answers", || {
        tool::output("tpm2_getrandom", &["4"], &borrowed, b"").status.success().then_some(())
    });
    let store = format!("--path={}", at("store"));
    run("tpm2_ptool", &["init", &store], &environment);
    let (so_pin, pin, label) = (format!("--sopin={SO_PIN}"), format!("--userpin={PIN}"), format!("--label={label}"));
    run("tpm2_ptool", &["addtoken", "--pid=1", &so_pin, &pin, &label, &store], &environment);
    // In the order in which they end.
    Footing { environment, _daemons: vec![abrmd, dbus, swtpm] }
}

fn kryoptic(directory: &Path, label: &str) -> Footing {
    let conf = directory.join("kryoptic.conf");
    let text = format!("[[slots]]\nslot = 8\ndbtype = \"sqlite\"\ndbargs = \"{}/token.sql\"\n", directory.display());
    fs::write(&conf, text).unwrap();
    let environment = vec![("KRYOPTIC_CONF", conf)];
    let module = Module::Kryoptic.path();
    let slot = ["--module", module.to_str().unwrap(), "--slot", "8", "--so-pin", SO_PIN];
    run("pkcs11-tool", &[&slot[..], &["--init-token", "--label", label]].concat(), &environment);
    let user = ["--login", "--login-type", "so", "--init-pin", "--new-pin", PIN];
    run("pkcs11-tool", &[&slot[..], &user].concat(), &environment);
    Footing { environment, _daemons: Vec::new() }
}

/// A program that is killed when the test's thread ends, even if nobody is left to drop it.
fn daemon(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A program that runs beside a test, and is killed when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
