// SPDX-License-Identifier: GPL-2.0

//! An HTTP server for one page, which Prometheus reads.
//!
//! The server trusts no client: it limits the length of requests, the time for a request and its
//! answer, and the number of connections. A connection is closed after its answer.
//!
//! hyper implements HTTP. This module implements time limits, answers to requests that hyper
//! doesn't understand, and the end of connections. One thread handles all connections, and other
//! threads make the page.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{poll_fn, Future};
use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{HeaderValue, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::{spawn_blocking, spawn_local, LocalSet};
use tokio::time::{sleep, timeout_at, Instant, Sleep};

/// Path of the page.
pub const PATH: &str = "/metrics";

/// Most connections that are handled at the same time; others are closed at once.
const MOST: usize = 32;
/// Longest head of a request, up to the blank line, in bytes.
const HEAD: usize = 8192;
/// Most headers of a request.
const HEADERS: usize = 64;
/// Most bytes after the head that are read and discarded.
const REST: usize = 65536;

/// The content type of short texts.
const PLAIN: &str = "text/plain; charset=utf-8";

/// Limits on the time that a client may take.
#[derive(Clone, Copy)]
pub struct Patience {
    /// For sending the request.
    pub request: Duration,
    /// For reading the answer.
    pub answer: Duration,
}

/// The limits for Prometheus.
pub const PATIENCE: Patience = Patience {
    request: Duration::from_secs(5),
    answer: Duration::from_secs(30),
};

/// The function that makes the page, or returns the reason why it can't.
pub type Page = dyn Fn() -> std::result::Result<String, String> + Send + Sync;

/// A connection, through which hyper reads and writes.
struct Client {
    stream: TcpStream,
    /// When the connection is given up: at first the limit for the request, and from the first byte
    /// of the answer on the limit for the answer.
    until: Pin<Box<Sleep>>,
    /// How long the client may take for reading the answer.
    answer: Duration,
    /// Number of bytes that were read.
    read: usize,
    /// Whether the client did not send its request in time.
    is_late: bool,
    /// Whether hyper has understood the request.
    understood: Rc<Cell<bool>>,
    /// Whether the answer has begun.
    is_answered: bool,
}

impl Client {
    fn new(stream: TcpStream, patience: Patience, understood: Rc<Cell<bool>>) -> Self {
        Self {
            stream,
            until: Box::pin(sleep(patience.request)),
            answer: patience.answer,
            read: 0,
            is_late: false,
            understood,
            is_answered: false,
        }
    }

    /// Starts the time limit for the answer.
    fn begin_answer(&mut self) {
        self.until.as_mut().reset(Instant::now() + self.answer);
        self.is_answered = true;
    }

    /// Returns whether the time limit has passed; if not, wakes the task when it does.
    fn is_given_up(&mut self, context: &mut Context<'_>) -> bool {
        self.until.as_mut().poll(context).is_ready()
    }

    /// Answers a request that hyper didn't understand.
    async fn refuse(&mut self, status: StatusCode, why: &str) -> Result<()> {
        self.begin_answer();
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {PLAIN}\r\nContent-Length: {}\r\n\
             Connection: close\r\nCache-Control: no-store\r\n\r\n{why}",
            why.len()
        );
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            timeout_at(self.until.deadline(), self.stream.writable()).await??;
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Closes the connection after the client has read its answer. Reads and discards what the
    /// client still sends: with unread bytes, closing would reset the connection, and the answer be
    /// lost.
    async fn end(mut self, patience: Patience) -> Result<()> {
        let until = (Instant::now() + patience.request).min(self.until.deadline());
        poll_fn(|context| Pin::new(&mut self.stream).poll_shutdown(context)).await?;
        let (mut buffer, mut rest) = ([0; 4096], REST);
        while rest > 0 {
            timeout_at(until, self.stream.readable()).await??;
            match self.stream.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => rest = rest.saturating_sub(read),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Read for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        // The client may be silent while its page is made.
        let is_expected = !self.understood.get() || self.is_answered;
        if is_expected && self.is_given_up(context) {
            self.is_late = !self.is_answered;
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        let mut bytes = [0; 4096];
        let room = into.remaining().min(bytes.len());
        let mut buffer = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        self.read += buffer.filled().len();
        into.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Client {
    /// Writes to the connection. Discards hyper's own answer to a request that it didn't
    /// understand, as it has no text; [`Client::refuse`] sends another.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        if !self.understood.get() {
            return Poll::Ready(Ok(bytes.len()));
        }
        if !self.is_answered {
            self.begin_answer();
        }
        if self.is_given_up(context) {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Returns a response with all headers.
fn response(status: StatusCode, kind: &'static str, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    let length = response.body().len();
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// Returns the response to a request. Fails if the function that makes the page panics. hyper
/// leaves out the body if the method is HEAD.
async fn answer(request: Request<Incoming>, page: Arc<Page>) -> Result<Response<String>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "only GET and HEAD\n";
        return Ok(response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text));
    }
    Ok(match request.uri().path() {
        PATH => {
            // In another thread, so that other connections are served meanwhile.
            match spawn_blocking(move || page()).await.map_err(Error::other)? {
                Ok(body) => {
                    let kind = "text/plain; version=0.0.4; charset=utf-8";
                    response(StatusCode::OK, kind, body)
                }
                Err(why) => response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, why + "\n"),
            }
        }
        "/" => response(
            StatusCode::OK,
            "text/html; charset=utf-8",
            format!("<!DOCTYPE html><title>drrctl</title><a href=\"{PATH}\">metrics</a>\n"),
        ),
        _ => response(StatusCode::NOT_FOUND, PLAIN, format!("only {PATH}\n")),
    })
}

/// Reads a request, answers it and closes the connection. Doesn't answer a client that has gone.
async fn serve_one(stream: TcpStream, page: Arc<Page>, patience: Patience) -> Result<()> {
    let understood = Rc::new(Cell::new(false));
    let client = Client::new(stream, patience, understood.clone());
    let service = service_fn(|request| {
        understood.set(true);
        Box::pin(answer(request, page.clone()))
    });
    let mut connection = http1::Builder::new()
        .auto_date_header(false)
        // A client that has shut down its sending side may still wait for the answer.
        .half_close(true)
        .header_read_timeout(None)
        .keep_alive(false)
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        .title_case_headers(true)
        .serve_connection(client, service);
    let served = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let mut client = connection.into_parts().io;
    match served {
        _ if client.is_late => {
            let why = "the request took too long\n";
            client.refuse(StatusCode::REQUEST_TIMEOUT, why).await?;
        }
        Ok(()) if client.is_answered => {}
        Err(error) if !understood.get() && error.is_parse_too_large() => {
            let why = match client.read < HEAD {
                true => "too many headers\n",
                false => "the request is too long\n",
            };
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            client.refuse(status, why).await?;
        }
        Err(error) if !understood.get() && error.is_parse() => {
            let why = format!("not understood: {error}\n");
            client.refuse(StatusCode::BAD_REQUEST, &why).await?;
        }
        _ => return Ok(()),
    }
    client.end(patience).await
}

/// A place among the connections that are handled.
struct Seat(Rc<Cell<usize>>);

impl Seat {
    /// Takes a place; `None` if all are taken. `taken` is the number of places that are taken.
    fn take(taken: &Rc<Cell<usize>>) -> Option<Self> {
        (taken.get() < MOST).then(|| {
            taken.set(taken.get() + 1);
            Self(taken.clone())
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Accepts connections, and has each handled in a task of its own. Returns only if no connection
/// can be accepted any more.
async fn accept(listener: TcpListener, page: Arc<Page>, patience: Patience) -> Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let taken = Rc::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => match error.raw_os_error() {
                // The client has gone.
                Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => continue,
                // Descriptors or memory will become free again.
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
                _ => return Err(error),
            },
        };
        let Some(seat) = Seat::take(&taken) else {
            continue;
        };
        let served = serve_one(stream, page.clone(), patience);
        spawn_local(async move {
            let _seat = seat;
            // Errors of a connection concern only its client.
            let _ = served.await;
        });
    }
}

/// Serves the page. Returns only if no connection can be accepted any more.
pub fn serve(listener: TcpListener, page: Arc<Page>, patience: Patience) -> Error {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime.and_then(|it| LocalSet::new().block_on(&it, accept(listener, page, patience))) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Parses an address and a port to listen on. A port alone is refused, as it might mean all
/// addresses.
pub fn address(text: &str) -> std::result::Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "use ADDRESS:PORT, e.g. 127.0.0.1:9776 or [::1]:9776".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::thread;
    use std::time::Instant;

    fn start(
        page: impl Fn() -> std::result::Result<String, String> + Send + Sync + 'static,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let patience = Patience {
            request: Duration::from_millis(500),
            answer: Duration::from_millis(500),
        };
        thread::spawn(move || serve(listener, Arc::new(page), patience));
        address
    }

    fn start_plain() -> SocketAddr {
        start(|| Ok("drr_up 1\n".into()))
    }

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).expect("connected");
        // The server may answer, and close the connection, before all was sent.
        let _ = stream.write_all(request);
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        String::from_utf8(text).expect("UTF-8")
    }

    #[test]
    fn the_page_is_served() {
        let address = start_plain();
        for (request, version) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "1.1"),
            ("GET /metrics?x=y HTTP/1.0\r\n\r\n", "1.0"),
            ("GET /metrics HTTP/1.1\nHost: x\n\n", "1.1"),
        ] {
            let text = ask(address, request.as_bytes());
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            let wanted = format!(
                "HTTP/{version} 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
                 Content-Length: 9\r\nConnection: close\r\nCache-Control: no-store"
            );
            assert_eq!((head, body), (wanted.as_str(), "drr_up 1\n"));
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
        let cases: [(&[u8], &str, &str); 10] = [
            (b"GET /other HTTP/1.1\r\n\r\n", "404", "only /metrics"),
            (b"GET /metricsx HTTP/1.1\r\n\r\n", "404", "only /metrics"),
            (
                b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
                "405",
                "only GET and HEAD",
            ),
            (
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                "400",
                "not understood: ",
            ),
            (b"GET /metrics SPDY/9\r\n\r\n", "400", "not understood: "),
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                "400",
                "not understood: ",
            ),
            (
                b"GET /metrics HTTP/1.1\r\n: x\r\n\r\n",
                "400",
                "not understood: ",
            ),
            (&long, "431", "the request is too long"),
            (header.as_bytes(), "431", "the request is too long"),
            (many.as_bytes(), "431", "too many headers"),
        ];
        for (request, status, why) in cases {
            let text = ask(address, request);
            let shown = String::from_utf8_lossy(&request[..request.len().min(60)]);
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")) && body.starts_with(why),
                "{shown}: {text}"
            );
            assert!(
                head.contains(&format!("Content-Length: {}\r\n", body.len())),
                "{text}"
            );
            assert_eq!(head.contains("Allow: GET, HEAD"), status == "405", "{text}");
        }
        assert!(ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").contains("drr_up 1"));
    }

    #[test]
    fn slow_clients_are_given_up() {
        let address = start_plain();
        for part in ["", "GET /metr"] {
            let mut slow = TcpStream::connect(address).expect("connected");
            slow.write_all(part.as_bytes()).expect("written");
            let mut text = String::new();
            slow.read_to_string(&mut text).expect("an end");
            assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
            assert!(text.ends_with("the request took too long\n"), "{text}");
        }
        // Sending a byte at a time doesn't extend the time limit.
        let mut slow = TcpStream::connect(address).expect("connected");
        let start = Instant::now();
        while slow.write_all(b"x").is_ok() && start.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(20));
        }
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn clients_that_send_no_more_are_answered() {
        // Making the page takes longer than a request may.
        let address = start(|| {
            thread::sleep(Duration::from_millis(1000));
            Ok("drr_up 1\n".into())
        });
        let mut stream = TcpStream::connect(address).expect("connected");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
            .expect("written");
        stream.shutdown(Shutdown::Write).expect("shut down");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an end");
        assert!(text.ends_with("drr_up 1\n"), "{text}");
    }

    #[test]
    fn clients_that_do_not_read_are_given_up() {
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
        // When these are given up, there are seats again.
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
