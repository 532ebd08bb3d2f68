//! A network between the appliance and Redis that loses replies.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
};

/// Forwards to a server, and breaks the connection instead of delivering certain replies.
pub struct Proxy {
    pub port: u16,
    replies_to_lose: Arc<AtomicUsize>,
}

impl Proxy {
    /// `marker` tells the replies that can be lost.
    pub async fn before(server: u16, marker: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let replies_to_lose = Arc::new(AtomicUsize::new(0));
        let losing = Arc::clone(&replies_to_lose);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server, marker, Arc::clone(&losing)));
            }
        });
        Self { port, replies_to_lose }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn lose(&self, replies: usize) {
        self.replies_to_lose.store(replies, Ordering::SeqCst);
    }

    /// How many of the replies are still to be lost.
    pub fn left(&self) -> usize {
        self.replies_to_lose.load(Ordering::SeqCst)
    }
}

async fn forward(client: TcpStream, server: u16, marker: &'static [u8], losing: Arc<AtomicUsize>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            Ok(read) = read(&client, &mut up) => {
                if read == 0 || write(&server, &up[..read]).await.is_err() { return }
            }
            Ok(read) = read(&server, &mut down) => {
                let reply = &down[..read];
                let marked = reply.windows(marker.len()).any(|window| window == marker);
                let lose = |left: usize| left.checked_sub(1);
                if marked && losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() { return }
                if read == 0 || write(&client, reply).await.is_err() { return }
            }
            else => return,
        }
    }
}

async fn read(from: &TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

async fn write(to: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        to.ready(Interest::WRITABLE).await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
