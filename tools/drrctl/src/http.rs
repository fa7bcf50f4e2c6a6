// SPDX-License-Identifier: GPL-2.0

//! A server of one page, for Prometheus.
//!
//! It trusts no client: what a request may take is bounded in bytes and in time, and so is the
//! number of those that are looked at. A connection is closed after its answer.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub const PATH: &str = "/metrics";

/// Connections that are looked at at the same time; more are closed at once.
const MOST: usize = 32;
/// Bytes of a request, up to the blank line.
const HEAD: usize = 8192;
const HEADERS: usize = 64;
/// What else a client sends is thrown away, up to so much.
const REST: usize = 65536;

/// How long a client may take for its request, and for the answer.
#[derive(Clone, Copy)]
pub struct Patience {
    pub request: Duration,
    pub answer: Duration,
}

pub const PATIENCE: Patience = Patience {
    request: Duration::from_secs(5),
    answer: Duration::from_secs(30),
};

/// What to tell a client: the page, or what is wrong.
pub type Page = dyn Fn() -> std::result::Result<String, String> + Send + Sync;

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
    /// Only the headers are wanted.
    head: bool,
}

impl Answer {
    fn plain(status: &'static str, body: impl Into<String>) -> Self {
        Self {
            status,
            kind: "text/plain; charset=utf-8",
            body: body.into(),
            head: false,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { status, kind, .. } = self;
        let mut text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Connection: close\r\nCache-Control: no-store\r\n",
            self.body.len()
        );
        if status.starts_with("405") {
            text.push_str("Allow: GET, HEAD\r\n");
        }
        text.push_str("\r\n");
        if !self.head {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

/// A connection that is given up at a moment.
struct Connection {
    stream: TcpStream,
    until: Instant,
}

impl Connection {
    fn left(&self) -> Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        match self.stream.read(buffer) {
            // what a timeout looks like
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            result => result,
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(self.left()?)?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lets the client read what it was told: closing with bytes unread would take it back.
    fn end(mut self) -> Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        let (mut buffer, mut rest) = ([0; 4096], REST);
        while rest > 0 {
            match self.read(&mut buffer)? {
                0 => break,
                read => rest = rest.saturating_sub(read),
            }
        }
        Ok(())
    }
}

/// Reads a request, and says what to answer; nothing to one who has gone.
fn answer(connection: &mut Connection, page: &Page) -> Result<Option<Answer>> {
    let (mut buffer, mut filled) = ([0; HEAD], 0);
    loop {
        if filled == HEAD {
            return Ok(Some(Answer::plain(
                "431 Request Header Fields Too Large",
                "the request is too long\n",
            )));
        }
        match connection.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(None),
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                return Ok(Some(Answer::plain(
                    "408 Request Timeout",
                    "the request took too long\n",
                )))
            }
            Err(error) => return Err(error),
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&buffer[..filled]) {
            Ok(httparse::Status::Partial) => {}
            Ok(httparse::Status::Complete(_)) => return Ok(Some(to(&request, page))),
            Err(httparse::Error::TooManyHeaders) => {
                return Ok(Some(Answer::plain(
                    "431 Request Header Fields Too Large",
                    "too many headers\n",
                )))
            }
            Err(error) => {
                return Ok(Some(Answer::plain(
                    "400 Bad Request",
                    format!("not understood: {error}\n"),
                )))
            }
        }
    }
}

fn to(request: &httparse::Request<'_, '_>, page: &Page) -> Answer {
    let head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Answer::plain("405 Method Not Allowed", "only GET and HEAD\n"),
    };
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let answer = match path {
        PATH => match page() {
            Ok(body) => Answer {
                kind: "text/plain; version=0.0.4; charset=utf-8",
                ..Answer::plain("200 OK", body)
            },
            Err(why) => Answer::plain("500 Internal Server Error", why + "\n"),
        },
        "/" => Answer {
            kind: "text/html; charset=utf-8",
            ..Answer::plain(
                "200 OK",
                format!("<!DOCTYPE html><title>drrctl</title><a href=\"{PATH}\">metrics</a>\n"),
            )
        },
        _ => Answer::plain("404 Not Found", format!("only {PATH}\n")),
    };
    Answer { head, ..answer }
}

fn serve_one(stream: TcpStream, page: &Page, patience: Patience) -> Result<()> {
    let mut connection = Connection {
        stream,
        until: Instant::now() + patience.request,
    };
    let Some(answer) = answer(&mut connection, page)? else {
        return Ok(());
    };
    connection.until = Instant::now() + patience.answer;
    connection.write(&answer.bytes())?;
    connection.until = connection.until.min(Instant::now() + patience.request);
    connection.end()
}

/// A place among those that are looked at.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let seat = Self(taken.clone());
        (taken.fetch_add(1, Ordering::Relaxed) < MOST).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves for ever. Ends only if nothing can be accepted any more.
pub fn serve(listener: &TcpListener, page: Arc<Page>, patience: Patience) -> Error {
    let taken = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => match error.raw_os_error() {
                // the client has gone
                Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => continue,
                // others will let go of theirs
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    thread::sleep(Duration::from_millis(100));
                    continue;
                }
                _ => return error,
            },
        };
        let Some(seat) = Seat::take(&taken) else {
            continue;
        };
        let page = page.clone();
        // without memory for a thread the client has to come again
        let _ = thread::Builder::new()
            .name("request".into())
            .spawn(move || {
                let _seat = seat;
                // who doesn't listen isn't told
                let _ = serve_one(stream, &*page, patience);
            });
    }
}

/// Where to listen; a number in place of an address is not enough, lest it be all of them.
pub fn address(text: &str) -> std::result::Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "use ADDRESS:PORT, e.g. 127.0.0.1:9776 or [::1]:9776".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(
        page: impl Fn() -> std::result::Result<String, String> + Send + Sync + 'static,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let patience = Patience {
            request: Duration::from_millis(500),
            answer: Duration::from_millis(500),
        };
        thread::spawn(move || serve(&listener, Arc::new(page), patience));
        address
    }

    fn start_plain() -> SocketAddr {
        start(|| Ok("drr_up 1\n".into()))
    }

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).expect("connected");
        // it may be told before it has sent all
        let _ = stream.write_all(request);
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        String::from_utf8(text).expect("UTF-8")
    }

    #[test]
    fn the_page_is_served() {
        let address = start_plain();
        for request in [
            "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /metrics?x=y HTTP/1.0\r\n\r\n",
            "GET /metrics HTTP/1.1\nHost: x\n\n",
        ] {
            let text = ask(address, request.as_bytes());
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            assert!(head.contains("text/plain; version=0.0.4"), "{text}");
            assert!(head.contains("Content-Length: 9\r\n"), "{text}");
            assert_eq!(body, "drr_up 1\n");
        }
        let text = ask(address, b"HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(
            text.contains("Content-Length: 9") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
        assert!(ask(address, b"GET / HTTP/1.1\r\n\r\n").contains("href=\"/metrics\""));
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        let address = start(|| Err("no such thing".into()));
        let text = ask(address, b"GET /metrics HTTP/1.1\r\n\r\n");
        assert!(
            text.starts_with("HTTP/1.1 500 ") && text.contains("no such thing"),
            "{text}"
        );
    }

    #[test]
    fn broken_requests_are_refused() {
        let address = start_plain();
        let long = [b"GET /".to_vec(), vec![b'x'; 1 << 20]].concat();
        let header = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(HEAD));
        let many = format!(
            "GET /metrics HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(HEADERS + 1)
        );
        let cases: [(&[u8], &str); 9] = [
            (b"GET /other HTTP/1.1\r\n\r\n", "404"),
            (b"GET /metricsx HTTP/1.1\r\n\r\n", "404"),
            (
                b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
                "405",
            ),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
            (b"GET /metrics SPDY/9\r\n\r\n", "400"),
            (b"GET /metrics HTTP/1.1\r\n: x\r\n\r\n", "400"),
            (&long, "431"),
            (header.as_bytes(), "431"),
            (many.as_bytes(), "431"),
        ];
        for (request, status) in cases {
            let text = ask(address, request);
            let shown = String::from_utf8_lossy(&request[..request.len().min(60)]);
            assert!(
                text.starts_with(&format!("HTTP/1.1 {status} ")),
                "{shown}: {text}"
            );
        }
        assert!(ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").contains("drr_up 1"));
    }

    #[test]
    fn slow_clients_are_given_up() {
        let address = start_plain();
        let mut slow = TcpStream::connect(address).expect("connected");
        slow.write_all(b"GET /metr").expect("written");
        let mut text = String::new();
        slow.read_to_string(&mut text).expect("an end");
        assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
        // a byte at a time doesn't help
        let mut slow = TcpStream::connect(address).expect("connected");
        let start = Instant::now();
        while slow.write_all(b"x").is_ok() && start.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(20));
        }
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn those_who_do_not_read_are_given_up() {
        let address = start(|| Ok("x".repeat(64 << 20)));
        let mut stream = TcpStream::connect(address).expect("connected");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
            .expect("written");
        thread::sleep(Duration::from_millis(1500));
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 64 << 20);
    }

    #[test]
    fn a_crowd_has_no_more_than_its_seats() {
        let address = start_plain();
        let crowd: Vec<_> = (0..MOST * 4)
            .map(|_| TcpStream::connect(address).expect("connected"))
            .collect();
        let start = Instant::now();
        // when these are given up there are seats again
        while !ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").contains("drr_up 1") {
            assert!(start.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(20));
        }
        drop(crowd);
    }

    #[test]
    fn a_page_that_fails_leaves_no_seat_taken() {
        let address = start(|| panic!("for the test"));
        for _ in 0..MOST + 8 {
            assert_eq!(ask(address, b"GET /metrics HTTP/1.1\r\n\r\n"), "");
        }
        assert!(ask(address, b"GET / HTTP/1.1\r\n\r\n").contains("200 OK"));
    }

    #[test]
    fn addresses() {
        assert!(address("127.0.0.1:9776").is_ok_and(|it| it.ip().is_loopback()));
        assert!(address("[::1]:0").is_ok());
        for text in [
            "",
            "9776",
            ":9776",
            "localhost:9776",
            "127.0.0.1",
            "1.2.3.4:99999",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
