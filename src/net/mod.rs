//! Sockets: listeners, telling protocols apart, receive buffers and write queues. Bytes, no protocol.

mod detect;
mod listener;
mod outbox;
mod receive_buffer;
mod tls;
mod validity;

pub use detect::{Detected, detect};
pub use listener::{IN_USE_PATIENCE, ListenError, Sharing, bind, bind_shared};
pub use outbox::{Chunk, Outbox};
pub use receive_buffer::ReceiveBuffer;
pub use tls::{ALPN_HTTP_1_1, CertificateSource, TlsError, TlsFiles, TlsRefreshed, TlsWarning, door_config};
pub use validity::CertificateWarning;
