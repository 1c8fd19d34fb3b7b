//! Requests by their codes: whether they are allowed, and who carries them out.

use super::answer::{Answer, Asker};
use super::connection::Remoting;
use super::locks::Locking;
use super::signed::Sender;
use crate::api::{Failure, RequestSubject};
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::{Asked, Frame, Header, Refusal, ResponseCode, STAGES, kind_of};
use crate::server::framed::CallTerms;
use crate::types::Account;

use std::rc::Rc;

/// Why a request is not carried out, before it is said as the client understands it.
pub(super) enum Refused {
    /// As RocketMQ says it.
    Told(Refusal),
    Failed(Failure),
}

impl<T: Into<Refusal>> From<T> for Refused {
    fn from(refusal: T) -> Self {
        Self::Told(refusal.into())
    }
}

impl Refused {
    pub fn failed(failure: Failure) -> Self {
        Self::Failed(failure)
    }

    pub fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self::Told(Refusal::new(code, remark))
    }

    pub fn told(self, version: i32) -> Refusal {
        match self {
            Refused::Told(refusal) => refusal,
            Refused::Failed(failure) => Refusal::of(&failure, Asked::Other, version),
        }
    }
}

impl Remoting {
    /// Carries a request out, or begins to.
    pub(super) async fn request(self: &Rc<Self>, header: &Header<'_>, frame: &Frame<'_>) {
        let asker = Asker::of(header, frame.form);
        let outcome = match self.sender(header, frame.body) {
            Ok(sender) => self.take_up(asker, &sender, header, frame.body).await,
            Err(failure) => Err(Refused::failed(failure)),
        };
        match outcome.transpose() {
            None => {}
            Some(outcome) => {
                self.connections.metrics.requests.add(1);
                self.answer(asker, outcome);
            }
        }
    }

    /// Where the time of the request went that is being answered, if its client has asked for that.
    pub(super) fn asked_stages(&self) -> Option<String> {
        let stages = self.connections.metrics.flight.asked(|| self.connections.clock.monotonic());
        stages.map(|stages| stages.to_string())
    }

    pub(super) fn answer(&self, asker: Asker, mut outcome: Result<Answer, Refused>) {
        if let (Ok(answer), Some(stages)) = (&mut outcome, self.asked_stages()) {
            answer.fields.push((STAGES, stages));
        }
        let outcome = outcome.map_err(|refused| refused.told(asker.version));
        asker.answer(&self.connection.outbox, &outcome);
    }

    /// Has a request carried out beside others, in a task of its own: it asks the disk or other shards.
    pub(super) async fn begin(
        self: &Rc<Self>,
        asker: Asker,
        outcome: impl Future<Output = Result<Answer, Refused>> + 'static,
    ) -> Result<Option<Answer>, Refused> {
        self.begin_with_room(asker, 0, outcome).await
    }

    /// The same where the answer may take many bytes: there is room for them before it is made.
    pub(super) async fn begin_with_room(
        self: &Rc<Self>,
        asker: Asker,
        bytes: usize,
        outcome: impl Future<Output = Result<Answer, Refused>> + 'static,
    ) -> Result<Option<Answer>, Refused> {
        let terms = CallTerms { carried_bytes: 0, waits_long: false, is_parked: false, deadline: None };
        let Some(call) = self.calls.begin(terms, None).await else { return Ok(None) };
        call.describe(RequestSubject::of(kind_of(asker.code)));
        let remoting = self.clone();
        let task = async move {
            let _room = match bytes {
                0 => None,
                bytes => match call.reserve_answer(Account::Answers, bytes).await {
                    Some(room) => Some(room),
                    None => return,
                },
            };
            remoting.answer(asker, call.traced(outcome).await);
        };
        glommio::spawn_local(task).detach();
        Ok(None)
    }

    /// `None`: it is answered later, or not at all.
    async fn take_up(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
        body: &[u8],
    ) -> Result<Option<Answer>, Refused> {
        match header.code {
            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER | request::GET_TOPICS_BY_CLUSTER => {
                self.begin_list(asker, sender, header).await
            }
            request::HEART_BEAT => self.heartbeat(asker, sender, header, body).await,
            request::UNREGISTER_CLIENT => self.unregister_client(asker, sender, header).await,
            request::RECALL_MESSAGE => self.recall(asker, sender, header).await,
            request::CONSUMER_SEND_MSG_BACK => self.send_back(asker, sender, header).await,
            request::SEND_REPLY_MESSAGE | request::SEND_REPLY_MESSAGE_V2 => {
                self.take_reply(asker, sender, header, body).await
            }
            request::END_TRANSACTION => self.end_transaction(asker, sender, header).await,
            request::LOCK_BATCH_MQ => self.change_locks(asker, sender, body, Locking::Lock).await,
            request::UNLOCK_BATCH_MQ => self.change_locks(asker, sender, body, Locking::Unlock).await,
            request::QUERY_CONSUMER_OFFSET => self.query_offset(asker, sender, header).await,
            request::UPDATE_CONSUMER_OFFSET => self.update_offset(asker, sender, header).await,
            request::SEARCH_OFFSET_BY_TIMESTAMP
            | request::GET_MAX_OFFSET
            | request::GET_MIN_OFFSET
            | request::GET_EARLIEST_MSG_STORETIME => self.queue_offset(asker, sender, header).await,
            request::QUERY_MESSAGE | request::VIEW_MESSAGE_BY_ID => {
                self.begin_query(asker, sender.clone(), header).await
            }
            _ => self.administer(asker, sender, header, body).await,
        }
    }

    /// What is answered at once, and what nobody knows.
    pub(super) fn carry_out(
        &self,
        sender: &Sender,
        header: &Header<'_>,
        body: &[u8],
    ) -> Result<Answer, Refused> {
        match header.code {
            request::GET_ROUTEINFO_BY_TOPIC => self.route(sender, header),
            request::GET_BROKER_CLUSTER_INFO => self.cluster_info(sender),
            request::GET_BROKER_MEMBER_GROUP => self.member_group(sender, header),
            request::REGISTER_BROKER => self.register_broker(sender, header, body),
            request::UNREGISTER_BROKER => self.unregister_broker(sender, header),
            request::QUERY_DATA_VERSION => self.query_data_version(sender, header, body),
            request::BROKER_HEARTBEAT => self.broker_heartbeat(sender, header),
            request::PUT_KV_CONFIG => self.put_setting(sender, header),
            request::GET_KV_CONFIG => self.get_setting(sender, header),
            request::DELETE_KV_CONFIG => self.delete_setting(sender, header),
            request::GET_KVLIST_BY_NAMESPACE => self.settings_of_space(sender, header),
            request::WIPE_WRITE_PERM_OF_BROKER => self.set_writable(sender, header, false),
            request::ADD_WRITE_PERM_OF_BROKER => self.set_writable(sender, header, true),
            request::CHECK_CLIENT_CONFIG => self.check_client(sender, body),
            request::DELETE_TOPIC_IN_NAMESRV => self.forget_topic(sender, header),
            request::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(sender, header, body),
            request::GET_SYSTEM_TOPIC_LIST_FROM_NS => self.system_topics(sender),
            request::GET_UNIT_TOPIC_LIST
            | request::GET_HAS_UNIT_SUB_TOPIC_LIST
            | request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => self.unit_topics(sender, header),
            request::GET_NAMESRV_CONFIG => self.name_server_settings(sender),
            request::UPDATE_NAMESRV_CONFIG => self.change_name_server_settings(sender),
            request::GET_CONSUMER_LIST_BY_GROUP => self.consumer_list(sender, header),
            code => Err(Refused::new(
                ResponseCode::RequestCodeNotSupported,
                format!(" request type {code} not supported"),
            )),
        }
    }
}
