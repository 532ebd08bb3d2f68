//! A master with replicas, watched by three Sentinels.

use std::collections::HashMap;

use super::redis::{RedisServer, until};

pub const NAME: &str = "mymaster";

/// The group. Which of the servers is the master changes.
pub struct Sentinels {
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// The first of the servers is the master.
    pub fn watching(servers: usize) -> Self {
        let servers: Vec<_> = (0..servers).map(|_| RedisServer::start(&[])).collect();
        servers[1..].iter().for_each(|replica| replica.follow(&servers[0]));
        let watched = format!(
            "sentinel monitor {NAME} 127.0.0.1 {} 2\nsentinel down-after-milliseconds {NAME} 1000\n\
             sentinel failover-timeout {NAME} 3000",
            servers[0].port
        );
        let sentinels: Vec<_> = (0..3).map(|_| RedisServer::sentinel(&watched)).collect();
        let group = Self { servers, sentinels };
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
            "[redis]\nsentinel = {{ urls = [{}], master = \"{NAME}\" }}\ncommand_timeout = \"1s\"\n",
            urls.join(", ")
        )
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

    /// Waits until all Sentinels agree on one master whose replicas all follow it. Servers that ought to
    /// follow are told to, since the Sentinels sometimes take a minute.
    pub fn settle(&self) -> usize {
        let mut settled = 0;
        until("the group agrees on a master", || {
            let Some(master) = self.named_master() else { return false };
            settled = master;
            let port = self.servers[master].port.to_string();
            for (index, server) in self.servers.iter().enumerate() {
                if index != master && server.info("replication", "role") == "master" {
                    server.command::<()>(&["REPLICAOF", "127.0.0.1", &port]);
                }
            }
            let followers = self.servers[master].info("replication", "connected_slaves");
            let agreed = self.views().iter().all(|view| view["port"] == port && view["flags"] == "master");
            let known = self.sentinels.iter().all(|sentinel| {
                let replicas: Vec<HashMap<String, String>> = sentinel.command(&["SENTINEL", "REPLICAS", NAME]);
                replicas.len() == self.servers.len() - 1
                    && replicas.iter().all(|view| view["flags"] == "slave" && view["master-link-status"] == "ok")
            });
            agreed && known && followers == (self.servers.len() - 1).to_string()
        });
        settled
    }
}
