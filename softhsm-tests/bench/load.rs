//! The load of a measurement, as cheap as it can be: whole requests are made before, answers are kept unread but
//! for their status and length, and everything is judged when the time is over.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
};

/// Before anything is measured: sessions are opened, connections are made, batches find their size.
pub const WARMING_UP: Duration = Duration::from_secs(1);

/// What is asked for, and how.
pub struct Load {
    pub address: String,
    /// Whole HTTP requests.
    pub requests: VecDeque<Vec<u8>>,
    pub connections: u32,
    /// The time from one request of a connection to its next; else each begins when the one before is answered.
    pub cycle: Option<Duration>,
    pub time: Duration,
}

/// What came of it.
pub struct Measured {
    /// Requests answered a second.
    pub rate: f64,
    /// Seconds, sorted. With a cycle counted from when a request was due.
    pub latencies: Vec<f64>,
    /// Every answer, those to the warming up and to the last requests as well.
    pub answers: Vec<Vec<u8>>,
}

/// The whole request.
pub fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

struct Shared {
    requests: RefCell<VecDeque<Vec<u8>>>,
    answers: RefCell<Vec<(Instant, f64, Vec<u8>)>>,
    is_over: Cell<bool>,
}

/// Asks; calls `begins` and `ends` where what is measured begins and ends.
pub fn run(load: Load, begins: impl FnOnce(), ends: impl FnOnce()) -> Measured {
    let Load { address, requests, connections, cycle, time } = load;
    let shared =
        Rc::new(Shared { requests: RefCell::new(requests), answers: RefCell::default(), is_over: Cell::new(false) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (from, to) = LocalSet::new().block_on(&runtime, async {
        let begun = Instant::now();
        // Each connection at its own time in the same cycle.
        let due = |number| cycle.map(|cycle| (begun + cycle * number / connections, cycle));
        let ask = |number| tokio::task::spawn_local(ask(address.clone(), Rc::clone(&shared), due(number)));
        let asking: Vec<_> = (0..connections).map(ask).collect();
        tokio::time::sleep(WARMING_UP).await;
        begins();
        let from = Instant::now();
        tokio::time::sleep_until((from + time).into()).await;
        let to = Instant::now();
        ends();
        shared.is_over.set(true);
        for one in asking {
            one.await.unwrap();
        }
        (from, to)
    });
    let answers = shared.answers.take();
    let measured = answers.iter().filter(|(at, ..)| (from..to).contains(at));
    let mut latencies: Vec<_> = measured.map(|(_, latency, _)| *latency).collect();
    latencies.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = latencies.len() as f64 / (to - from).as_secs_f64();
    Measured { rate, latencies, answers: answers.into_iter().map(|(.., answer)| answer).collect() }
}

/// One connection: a request after another until it is over, or one in each cycle.
async fn ask(address: String, shared: Rc<Shared>, mut due: Option<(Instant, Duration)>) {
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut room = 4096;
    while !shared.is_over.get() {
        let mut begun = Instant::now();
        if let Some((next, cycle)) = &mut due {
            begun = *next;
            *next += *cycle;
            tokio::time::sleep_until(begun.into()).await;
        }
        let request = shared.requests.borrow_mut().pop_front().expect("there are enough requests");
        stream.write_all(&request).await.unwrap();
        let answer = answer(&mut stream, room).await;
        room = room.max(answer.len() + 1024);
        let now = Instant::now();
        shared.answers.borrow_mut().push((now, (now - begun).as_secs_f64(), answer));
    }
}

/// The body of a 200.
async fn answer(stream: &mut TcpStream, room: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(room);
    let mut found = None;
    loop {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the connection was closed");
        found = found.or_else(|| head(&bytes));
        if let Some((head, length)) = found
            && bytes.len() >= head + length
        {
            assert!(bytes.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&bytes));
            return bytes.split_off(head);
        }
    }
}

/// Where the body begins, and its length.
fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..end]).unwrap();
    let length = text.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    Some((end, length.parse().unwrap()))
}
