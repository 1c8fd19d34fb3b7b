//! The HTTP access protocol of RocketMQ, as the vendor's `mq_http_sdk` packages speak it. Nothing here opens a socket or
//! waits: a request's parts come in, an answer goes out, and [`Backend`] is what carries calls out.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `head` | what HTTP asks of every request |
//! | `target` | method, path and query to a [`Call`] |
//! | `xml`, `request_document`, `answer_document` | the documents in both directions |
//! | `answer` | how a document goes out |
//! | `properties` | `key:value\|` and the names that mean something |
//! | `signature` | who sent a request |
//! | `error`, `request_id`, `date` | codes, statuses, what an answer is called, when it was made |
//! | `service` | the order of the checks, and the answers' form |

mod answer;
mod answer_document;
mod date;
mod error;
mod head;
mod properties;
mod request_document;
mod request_id;
mod service;
mod signature;
mod target;
mod xml;
mod xml_attributes;

pub use answer::Answer;
pub use answer_document::{
    BODY_ENCODING, DeliveredMessage, ERROR_NAMESPACE, HandleFailure, MessagesDocument, NAMESPACE,
    PublishedMessage, body_md5, md5_text, write_error, write_errors, write_messages, write_published,
};
pub use date::http_date;
pub use error::{ErrorCode, HttpError, code_of};
pub use head::{is_body_end_doubtful, unreadable_field};
pub use properties::{
    KEYS, Properties, PropertiesError, SHARDING_KEY, START_DELIVERY_TIME, TRANSACTION_CHECK_SECONDS,
    property_text,
};
pub use request_document::{PublishRequest, ReceiptHandles, parse_publish, parse_receipt_handles};
pub use request_id::{RequestId, RequestIds};
pub use service::{Admitted, Authentication, Backend, HttpService, Scheme};
pub use signature::{SKEW_MAX, SignatureError, SignedRequest, sign};
pub use target::{Call, Consume, ConsumeMode, LeaseEnd, METHODS, TopicReference};
pub use xml::DocumentError;
