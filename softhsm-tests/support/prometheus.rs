//! A real Prometheus that scrapes an appliance and evaluates the alert rules.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{eventually, redis::free_port, tool};

/// Killed when dropped.
pub struct Prometheus {
    child: Child,
    url: String,
    _home: TempDir,
}

impl Prometheus {
    /// Scrapes this metrics listener every second, as the job of the alert rules.
    pub fn scraping(metrics: &str, rules: &Path) -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\nscrape_configs:\n  \
             - job_name: verification-signer\n    static_configs: [{{ targets: ['{}'] }}]\n",
            rules.display(),
            metrics.strip_prefix("http://").unwrap()
        );
        fs::write(home.path().join("prometheus.yml"), config).unwrap();
        let url = format!("127.0.0.1:{}", free_port());
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}/prometheus.yml", home.path().display()))
            .arg(format!("--storage.tsdb.path={}/data", home.path().display()))
            .arg(format!("--web.listen-address={url}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(home.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let prometheus = Self { child, url: format!("http://{url}"), _home: home };
        eventually("three scrapes", || {
            let seen = prometheus.try_query("count_over_time(up{job=\"verification-signer\"}[1m]) >= 3")?;
            (!seen.is_empty()).then_some(())
        });
        prometheus
    }

    fn get(&self, path: &str, query: &str) -> Option<Value> {
        let url = format!("{}{path}", self.url);
        let output = tool::output("curl", &["-s", "-G", &url, "--data-urlencode", &format!("query={query}")], &[], b"");
        serde_json::from_slice(&output.stdout).ok()
    }

    fn try_query(&self, query: &str) -> Option<Vec<Value>> {
        let answer = self.get("/api/v1/query", query)?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned()
    }

    /// The series that a query finds now.
    pub fn query(&self, query: &str) -> Vec<Value> {
        self.try_query(query).unwrap_or_else(|| panic!("no answer to {query}"))
    }

    /// Every alert rule: its name, how its evaluation went, and its state.
    pub fn rules(&self) -> Vec<[String; 3]> {
        let answer = self.get("/api/v1/rules", "").unwrap();
        let groups = answer["data"]["groups"].as_array().unwrap();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        let word = |rule: &Value, field: &str| rule[field].as_str().unwrap().to_owned();
        rules.map(|rule| [word(rule, "name"), word(rule, "health"), word(rule, "state")]).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
