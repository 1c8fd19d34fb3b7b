//! The native protocol's decoders: arbitrary bytes are refused or understood, and what was understood says the same when
//! it is written and read again.

use crate::api::Request;
use crate::protocol::native::{
    DecodedReply, DecodedRequest, ReplyEncoder, RequestEncoder, decode_reply, decode_request,
};
use crate::wire::frame::{self, Frame};

/// Reads `bytes` as a connection's frames, each as a request and as a reply.
pub fn fuzz_frame(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(frame)) = frame::cut(rest) {
        assert!(frame.frame_bytes <= rest.len(), "a frame lies within its buffer");
        fuzz_request(&frame);
        fuzz_reply(&frame);
        rest = &rest[frame.frame_bytes..];
    }
}

/// Reads `bytes` as an envelope with `payload` behind it.
pub fn fuzz_envelope(bytes: &[u8], payload: &[u8]) {
    let frame = Frame { correlation: 1, envelope: bytes, payload, frame_bytes: 0 };
    fuzz_request(&frame);
    fuzz_reply(&frame);
}

fn fuzz_request(frame: &Frame<'_>) {
    let mut output = Vec::new();
    let mut encoder = RequestEncoder::new();
    match decode_request(frame) {
        Err(failure) => assert!(!failure.message.is_empty(), "a refusal says why"),
        Ok(DecodedRequest::Produce { key, level, batch }) => {
            if encoder.begin_produce(&mut output, 7, key, level, batch.len()).is_ok() {
                output.extend_from_slice(batch);
                let again = whole(&output);
                assert!(matches!(
                    decode_request(&again),
                    Ok(DecodedRequest::Produce { key: key_again, level: level_again, batch: batch_again })
                        if (key, level, batch) == (key_again, level_again, batch_again)
                ));
            }
        }
        Ok(DecodedRequest::Other(request)) => {
            encoder.encode(&mut output, 7, &request).expect("what fitted a frame fits it again");
            let again =
                decode_request(&whole(&output)).expect("a request that was understood is well formed");
            let DecodedRequest::Other(again) = again else { panic!("{request:?} became a produce") };
            assert_same(&request, &again);
        }
    }
}

fn fuzz_reply(frame: &Frame<'_>) {
    let Ok(reply) = decode_reply(frame).map(DecodedReply::into_owned) else { return };
    let mut output = Vec::new();
    ReplyEncoder::new().encode(&mut output, 7, &reply);
    let again = decode_reply(&whole(&output)).expect("this program wrote it").into_owned();
    // A foreign encoder may share what ours repeats, and then the answer becomes one that says it is too large; and a
    // failure's message is shortened.
    if let (Ok(reply), Ok(again)) = (&reply, &again) {
        assert_eq!(reply, again);
    }
}

fn assert_same(left: &Request, right: &Request) {
    assert_eq!(format!("{left:?}"), format!("{right:?}"));
}

fn whole(bytes: &[u8]) -> Frame<'_> {
    frame::cut(bytes).expect("this program wrote it").expect("it is complete")
}
