//! A server that is hyper and nothing else: it reads each request to its end and answers a constant.

use std::convert::Infallible;
use std::io::Result;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::workers;

/// As long as the broker's answer to a publish.
const ANSWER: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Message xmlns=\"http://mq.aliyuncs.com/doc/v1/\">\
    <MessageId>7F000001000078BF00000000000000AB</MessageId>\
    <MessageBodyMD5>0123456789ABCDEF0123456789ABCDEF</MessageBodyMD5></Message>";
const STACK_BUFFER_BYTES: usize = 16 * 1024;

/// Starts it in a thread that lasts as long as the process.
pub fn start(core: Option<usize>) -> Result<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        workers::run(core, || async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            sender.send(listener.local_addr()?).expect("the starter waits");
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(async move {
                    let served =
                        http1::Builder::new().serve_connection(Stream(stream), service_fn(answer)).await;
                    if let Err(error) = served {
                        eprintln!("the bare server lost a connection: {error}");
                    }
                });
            }
            #[expect(unreachable_code, reason = "gives the block its type")]
            Result::Ok(())
        })
    });
    Ok(receiver.recv().expect("the bare server starts"))
}

async fn answer(request: Request<Incoming>) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        drop(frame);
    }
    let answer = Response::builder()
        .status(201)
        .header("content-type", "text/xml;charset=UTF-8")
        .header("x-mq-request-id", "0123456789ABCDEF01234567")
        .header("x-mq-version", "2015-06-06")
        .body(Full::new(Bytes::from_static(ANSWER.as_bytes())))
        .expect("constant parts");
    Ok(answer)
}

struct Stream(TcpStream);

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut output: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        let mut bytes = [0; STACK_BUFFER_BYTES];
        let count = output.remaining().min(bytes.len());
        let mut buffer = ReadBuf::new(&mut bytes[..count]);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer))?;
        output.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
