//! The thread that serves the admin address, and its way to the shards.

use std::convert::Infallible;
use std::net::TcpListener;
use std::thread::JoinHandle;

use super::mailbox::{Letter, Letterbox};
use super::options::ServeOptions;
use super::run::NodeError;
use crate::admin::{AdminError, AdminServer, AdminSetup, AdminTls, Facts, PhaseBoard, Post, Question};
use crate::runtime::host;
use crate::server::TlsMode;
use crate::types::{NodeId, ShardId};

/// The admin address while it is served. Dropped, it is served no longer.
pub(super) struct AdminThread {
    /// Closing it ends the thread.
    stop: async_channel::Sender<Infallible>,
    thread: Option<JoinHandle<()>>,
}

/// Questions are letters.
struct Letterboxes(Vec<Letterbox>);

impl Post for Letterboxes {
    fn send(&self, shard: ShardId, question: Question) -> bool {
        self.0[usize::from(shard.0)].try_send(Letter::Question(question)).is_ok()
    }
}

/// What a node that starts knows of itself.
pub(super) struct Known<'a> {
    pub node: NodeId,
    pub name: &'a str,
    pub letterboxes: &'a [Letterbox],
    pub phase: &'a PhaseBoard,
}

impl AdminThread {
    /// Begins to serve, before the shards recover: who asks is told that they do.
    pub fn start(
        listener: TcpListener,
        options: &ServeOptions,
        known: &Known<'_>,
    ) -> Result<Self, NodeError> {
        let address = listener.local_addr().map_err(AdminError::from)?;
        let is_loopback = address.ip().to_canonical().is_loopback();
        let tls = options.tls_files().map(|(certificate, key)| {
            let is_required = match options.tls_mode {
                Some(TlsMode::Enforcing) => true,
                Some(TlsMode::Permissive | TlsMode::Disabled) => false,
                // Nobody listens in between, and probes of this machine need no certificate.
                None => !is_loopback,
            };
            AdminTls { certificate, key, is_required }
        });
        let letterboxes = Letterboxes(known.letterboxes.to_vec());
        let setup = AdminSetup {
            facts: Facts {
                version: env!("CARGO_PKG_VERSION"),
                node: known.node,
                name: known.name.to_owned(),
                cluster: options.cluster.clone(),
                shard_count: known.letterboxes.len() as u16,
                is_writable: options.admin_writable,
            },
            post: Box::new(letterboxes),
            phase: known.phase.clone(),
            is_loopback,
            has_keys: options.access_keys.is_some(),
            tls,
        };
        let server = AdminServer::open(listener, setup)?;
        let (stop, stopped) = async_channel::bounded(1);
        let serve = move || {
            host::give_way();
            server.run(&stopped);
        };
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(serve);
        Ok(Self { stop, thread: Some(thread.map_err(AdminError::from)?) })
    }
}

impl Drop for AdminThread {
    fn drop(&mut self) {
        self.stop.close();
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has told why.
            let _ = thread.join();
        }
    }
}
