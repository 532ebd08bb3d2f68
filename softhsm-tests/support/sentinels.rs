//! A master with replicas, watched by three Sentinels.

use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::{
    redis::{RedisServer, until},
    softhsm::SIGNER,
    tool,
};

const NAME: &str = "mymaster";
const PASSWORD: &str = "correct-horse-battery";

/// What the documentation of `redis.username` asks for, and a user for the test itself.
const USERS: &str = "--user signer on >correct-horse-battery ~virtengine:veid:* resetchannels -@all +evalsha \
                     +script|load +wait +info +time +exists +get +set +sadd +smembers +hget +hset +hmget +hgetall \
                     +hincrby +zadd +zrem +zcard +zscore +zincrby +zrange +zremrangebyrank +zremrangebyscore \
                     +pexpire +unlink +del --user admin on >correct-horse-battery ~* &* +@all";

/// The group. Which of the servers is the master changes. Appliances come as a user of their own,
/// replicas and Sentinels as the default one.
pub struct Sentinels {
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
    secrets: TempDir,
}

impl Sentinels {
    /// The first of the servers is the master.
    pub fn watching(servers: usize) -> Self {
        let users: Vec<_> = USERS.split_whitespace().collect();
        let servers: Vec<_> = (0..servers).map(|_| RedisServer::start(&users)).collect();
        for replica in &servers[1..] {
            replica.follow(&servers[0]);
        }
        let watched = format!(
            "sentinel monitor {NAME} 127.0.0.1 {} 2\nsentinel down-after-milliseconds {NAME} 1000\n\
             sentinel failover-timeout {NAME} 3000",
            servers[0].port
        );
        let sentinels: Vec<_> = (0..3).map(|_| RedisServer::sentinel(&watched)).collect();
        let secrets = tempfile::tempdir().unwrap();
        fs::write(secrets.path().join("password"), PASSWORD).unwrap();
        fs::set_permissions(secrets.path().join("password"), fs::Permissions::from_mode(0o600)).unwrap();
        let group = Self { servers, sentinels, secrets };
        let replicas = (group.servers.len() - 1).to_string();
        until("the Sentinels know the replicas and each other", || {
            group.views().iter().all(|view| view["num-slaves"] == replicas && view["num-other-sentinels"] == "2")
        });
        group
    }

    /// `[redis]` of an appliance that uses the group.
    pub fn table(&self) -> String {
        let urls: Vec<_> = self.sentinels.iter().map(|sentinel| format!("\"{}\"", sentinel.url())).collect();
        format!(
            "[redis]\nsentinel = {{ urls = [{}], master = \"{NAME}\" }}\ncommand_timeout = \"1s\"\n\
             username = \"signer\"\npassword_file = \"{}\"\n",
            urls.join(", "),
            self.secrets.path().join("password").display()
        )
    }

    /// Parts a server from the Sentinels and the other servers: it goes on answering appliances.
    pub fn partition(&self, index: usize) {
        self.administer(index, &["ACL", "SETUSER", "default", "off"]);
        self.administer(index, &["CLIENT", "KILL", "USER", "default"]);
    }

    pub fn heal(&self, index: usize) {
        self.administer(index, &["ACL", "SETUSER", "default", "on"]);
    }

    /// Whether this server has a record of the nonce.
    pub fn knows(&self, index: usize, nonce: &str) -> bool {
        self.administer(index, &["EXISTS", &format!("virtengine:veid:{{{SIGNER}}}:nonce:{nonce}")]).trim() == "1"
    }

    fn administer(&self, index: usize, words: &[&str]) -> String {
        let port = self.servers[index].port.to_string();
        let login = ["-p", &port, "--user", "admin", "--pass", PASSWORD, "--no-auth-warning"];
        tool::run("redis-cli", &[&login[..], words].concat(), &[])
    }

    fn views(&self) -> Vec<HashMap<String, String>> {
        self.sentinels.iter().map(|sentinel| sentinel.command(&["SENTINEL", "MASTER", NAME])).collect()
    }

    /// The server that a majority of the Sentinels names as the master, if one does.
    pub fn named_master(&self) -> Option<usize> {
        let named: Vec<_> = self.views().into_iter().map(|view| view["port"].clone()).collect();
        (0..self.servers.len()).find(|index| {
            let port = self.servers[*index].port.to_string();
            named.iter().filter(|name| **name == port).count() >= 2
        })
    }

    /// Waits until a master that this allows is named, and says so itself.
    pub fn await_master(&self, allowed: impl Fn(usize) -> bool) -> usize {
        let mut found = 0;
        until("the Sentinels name a master", || {
            let named = self.named_master().filter(|index| allowed(*index));
            named.is_some_and(|index| {
                found = index;
                self.servers[index].info("replication", "role") == "master"
            })
        });
        found
    }

    /// Waits until all Sentinels agree on one master whom all others follow.
    pub fn settle(&self) -> usize {
        self.settle_without(&[])
    }

    /// The same, while some are dead. Servers that ought to follow are told to, since the Sentinels
    /// sometimes take a minute.
    pub fn settle_without(&self, dead: &[usize]) -> usize {
        let living: Vec<_> = (0..self.servers.len()).filter(|index| !dead.contains(index)).collect();
        let mut settled = 0;
        until("the group agrees on a master", || {
            let Some(master) = self.named_master().filter(|master| living.contains(master)) else { return false };
            settled = master;
            self.all_follow(master, &living) && self.all_know(master, &living)
        });
        settled
    }

    fn all_follow(&self, master: usize, living: &[usize]) -> bool {
        let port = self.servers[master].port.to_string();
        for index in living.iter().filter(|index| **index != master) {
            let server = &self.servers[*index];
            if server.info("replication", "role") == "master" || server.info("replication", "master_port") != port {
                server.command::<()>(&["REPLICAOF", "127.0.0.1", &port]);
            }
        }
        self.servers[master].info("replication", "connected_slaves") == (living.len() - 1).to_string()
    }

    fn all_know(&self, master: usize, living: &[usize]) -> bool {
        let port = self.servers[master].port.to_string();
        let followers: Vec<_> = living.iter().filter(|index| **index != master).collect();
        let ports: Vec<_> = followers.iter().map(|index| self.servers[**index].port.to_string()).collect();
        self.views().iter().all(|view| view["port"] == port && view["flags"] == "master")
            && self.sentinels.iter().all(|sentinel| {
                let replicas: Vec<HashMap<String, String>> = sentinel.command(&["SENTINEL", "REPLICAS", NAME]);
                let up = |view: &&HashMap<String, String>| {
                    ports.contains(&view["port"]) && view["flags"] == "slave" && view["master-link-status"] == "ok"
                };
                replicas.iter().filter(up).count() == ports.len()
            })
    }
}
