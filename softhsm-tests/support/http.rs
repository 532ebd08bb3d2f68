//! HTTP by hand: requests that no client library would send, and many of them quickly.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use super::appliance::Answer;

/// A connection that sends whatever it is given.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects to `http://host:port`.
    pub fn open(base: &str) -> Self {
        let stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
        Self::over(stream)
    }

    /// Over a connection that is there.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        // Only so that a server that never answers fails the test instead of hanging it.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends bytes. The server may have answered and closed already: that is for `answer` to find out.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        // A connection that the server has closed is finished anyway.
        let _ = self.0.get_ref().shutdown(Shutdown::Write);
    }

    /// Hangs up in the hardest way, while the server may be at work for us: closing a connection with
    /// an unread answer resets it.
    pub fn reset_after(mut self, bytes: &[u8]) {
        self.send(&request("GET", "/livez", &[], b"")).unwrap();
        self.0.get_ref().peek(&mut [0]).unwrap();
        self.send(bytes).unwrap();
    }

    /// The next response; `None` when the connection ended before one began.
    pub fn answer(&mut self) -> io::Result<Option<Answer>> {
        self.read_answer(true)
    }

    /// The response to HEAD, which announces a body and has none.
    pub fn answer_to_head(&mut self) -> io::Result<Option<Answer>> {
        self.read_answer(false)
    }

    fn read_answer(&mut self, has_body: bool) -> io::Result<Option<Answer>> {
        let status = self.line()?;
        if status.is_empty() {
            return Ok(None);
        }
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no status line"))?;
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value.trim()).unwrap());
        }
        assert!(!headers.contains_key("transfer-encoding"), "our bodies have a length");
        let length = headers.get("content-length").map_or(0, |value| value.to_str().unwrap().parse().unwrap());
        let mut body = vec![0; if has_body { length } else { 0 }];
        self.0.read_exact(&mut body)?;
        Ok(Some(Answer { status, headers, body }))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

/// A request with a length, as bytes. Nothing is escaped or checked.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: signer\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() || !matches!(method, "GET" | "HEAD") {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A JSON POST, as bytes.
pub fn json_post(path: &str, body: &[u8]) -> Vec<u8> {
    request("POST", path, &[("content-type", "application/json")], body)
}
