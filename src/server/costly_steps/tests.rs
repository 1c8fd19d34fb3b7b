use std::pin::Pin;
use std::sync::Arc;

use futures_lite::future::{block_on, poll_once};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::*;
use crate::server::core_turns::tests::HandClock;

const CERTIFICATE: &[u8] = include_bytes!("../../../tests/data/tls/certificate.pem");
const KEY: &[u8] = include_bytes!("../../../tests/data/tls/key.pem");

/// A session that has read what a client says first.
fn session() -> Box<ServerConnection> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(KEY).expect("a key");
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("they belong together");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).expect("a session");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory takes it");
    let mut session = ServerConnection::new(Arc::new(config)).expect("a session");
    session.read_tls(&mut &hello[..]).expect("memory is read");
    Box::new(session)
}

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect("an address"))
}

/// Steps of a shard, and what threads would do.
struct Bench {
    clock: Rc<HandClock>,
    turns: Rc<CoreTurns>,
    steps: CostlySteps,
    thread: Receiver<CostlyStep>,
}

type Step<'a> = Pin<Box<dyn Future<Output = Option<Stepped>> + 'a>>;

impl Bench {
    fn new() -> Self {
        let clock = Rc::new(HandClock::default());
        let (sender, thread) = async_channel::unbounded();
        let (turns, steps) = (CoreTurns::new(clock.clone()), CostlySteps::new(clock.clone(), sender));
        Self { clock, turns, steps, thread }
    }

    /// One that has taken its place in the row.
    fn begin(&self, network: Option<IpAddr>, is_wanted: bool) -> Step<'_> {
        let mut step: Step<'_> =
            Box::pin(self.steps.carry_out(session(), network, &self.turns, move || is_wanted));
        assert!(block_on(poll_once(step.as_mut())).is_none_or(|made| made.is_none() && !is_wanted));
        step
    }

    /// Lets the thread make the step that is there.
    fn make(&self, run: &mut Pin<Box<impl Future<Output = ()>>>) {
        self.thread.try_recv().expect("one is there").carry_out();
        assert!(self.thread.is_empty(), "one at a time");
        assert!(block_on(poll_once(run.as_mut())).is_none());
    }
}

/// Whether a step is made, and well.
fn is_made(step: &mut Step<'_>) -> bool {
    block_on(poll_once(step.as_mut())).is_some_and(|stepped| {
        let stepped = stepped.expect("it is wanted");
        stepped.outcome.is_ok() && stepped.session.wants_write()
    })
}

#[test]
fn one_of_a_shard_is_away_and_networks_take_turns() {
    let bench = Bench::new();
    let mut run = Box::pin(bench.steps.run());
    let (many, few) = (address("192.0.2.1"), address("198.51.100.7"));
    let mut steps: Vec<_> = [many, many, many, few, few].map(|network| bench.begin(network, true)).into();
    let mut order = Vec::new();
    while order.len() < steps.len() {
        bench.make(&mut run);
        let made = (0..5).filter(|index| !order.contains(index)).find(|&index| is_made(&mut steps[index]));
        order.push(made.expect("the one that came back"));
        for index in (0..5).filter(|index| !order.contains(index)) {
            assert!(block_on(poll_once(steps[index].as_mut())).is_none());
        }
    }
    // The first was alone when it came: nobody is remembered whom nobody waits from.
    assert_eq!(order, [0, 1, 3, 2, 4]);
}

#[test]
fn who_has_gone_is_in_nobodys_way() {
    let bench = Bench::new();
    let mut run = Box::pin(bench.steps.run());
    let network = address("192.0.2.1");
    let mut steps: Vec<_> = (0..4).map(|_| bench.begin(network, true)).collect();
    // One that waits, and the one that is away: the next is called, and goes before it is looked at.
    drop(steps.remove(2));
    drop(steps.remove(0));
    bench.make(&mut run);
    drop(steps.remove(0));
    assert!(block_on(poll_once(steps[0].as_mut())).is_none());
    bench.make(&mut run);
    assert!(is_made(&mut steps[0]));
    let unwanted = bench.begin(network, false);
    drop(unwanted);
    assert!(bench.thread.is_empty(), "who is not wanted any more costs nothing");
    let mut last = bench.begin(network, true);
    bench.make(&mut run);
    assert!(is_made(&mut last));
}

/// The one that is away is lost, and those after it are made by the shard.
#[test]
fn the_end_of_the_threads_is_noticed() {
    let bench = Bench::new();
    let mut run = Box::pin(bench.steps.run());
    let mut steps: Vec<_> = (0..3).map(|_| bench.begin(None, true)).collect();
    drop(bench.thread.try_recv().expect("one is there"));
    bench.thread.close();
    assert!(block_on(poll_once(run.as_mut())).is_none());
    assert!(block_on(steps.remove(0)).is_none(), "it is lost");
    assert!(steps.iter_mut().all(is_made));
    let mut on_the_spot: Step<'_> = Box::pin(bench.steps.carry_out(session(), None, &bench.turns, || true));
    assert!(is_made(&mut on_the_spot));
    bench.steps.end();
    block_on(run);
}

/// Without an idle core nothing comes back for long.
#[test]
fn a_shard_makes_steps_itself_now_and_then_while_the_threads_starve() {
    let bench = Bench::new();
    let mut run = Box::pin(bench.steps.run());
    let mut steps: Vec<_> = (0..3).map(|_| bench.begin(None, true)).collect();
    for milliseconds in [100, 20] {
        assert!(block_on(poll_once(run.as_mut())).is_none());
        assert!(steps.iter_mut().all(|step| block_on(poll_once(step.as_mut())).is_none()));
        bench.clock.now.set(bench.clock.now.get() + milliseconds * 1_000_000);
        bench.clock.moved.wake();
        assert!(block_on(poll_once(run.as_mut())).is_none());
        assert!(is_made(&mut steps[1]), "{milliseconds} ms, while the first is away");
        drop(steps.remove(1));
    }
    bench.make(&mut run);
    assert!(is_made(&mut steps[0]));
}
