//! Requests and replies about instances, in both directions.

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use crate::api::{Failure, InstanceInfo, Request};
use crate::types::InstanceName;
use crate::wire::generated as schema;

use super::envelope::MalformedReply;

type Builder = FlatBufferBuilder<'static>;

/// The requests, as a client writes them.
pub(super) fn request_body(
    builder: &mut Builder,
    request: &Request,
) -> (schema::RequestBody, WIPOffset<UnionWIPOffset>) {
    use schema::RequestBody as Kind;
    match request {
        Request::CreateInstance(instance) => {
            let instance = Some(builder.create_string(instance.as_str()));
            let table = schema::CreateInstance::create(builder, &schema::CreateInstanceArgs { instance });
            (Kind::CreateInstance, table.as_union_value())
        }
        Request::DeleteInstance(instance) => {
            let instance = Some(builder.create_string(instance.as_str()));
            let table = schema::DeleteInstance::create(builder, &schema::DeleteInstanceArgs { instance });
            (Kind::DeleteInstance, table.as_union_value())
        }
        Request::ListInstances => {
            let table = schema::ListInstances::create(builder, &schema::ListInstancesArgs {});
            (Kind::ListInstances, table.as_union_value())
        }
        _ => unreachable!("not about instances: {request:?}"),
    }
}

/// The requests, as the server reads them; `None` of one that has no body of its kind.
pub(super) fn read_request(request: &schema::Request<'_>) -> Option<Result<Request, Failure>> {
    let name = |text: &str| text.parse::<InstanceName>().map_err(Failure::invalid);
    match request.body_type() {
        schema::RequestBody::CreateInstance => {
            Some(name(request.body_as_create_instance()?.instance()).map(Request::CreateInstance))
        }
        schema::RequestBody::DeleteInstance => {
            Some(name(request.body_as_delete_instance()?.instance()).map(Request::DeleteInstance))
        }
        _ => Some(Ok(Request::ListInstances)),
    }
}

/// The default instance's name is empty.
pub(super) fn list_table(
    builder: &mut Builder,
    instances: &[InstanceInfo],
) -> WIPOffset<schema::InstanceList<'static>> {
    let mut tables = Vec::with_capacity(instances.len());
    for info in instances {
        let name = info.instance.as_ref().map_or("", InstanceName::as_str);
        let arguments = schema::InstanceInfoArgs {
            instance: Some(builder.create_string(name)),
            topic_count: info.topic_count,
            group_count: info.group_count,
        };
        tables.push(schema::InstanceInfo::create(builder, &arguments));
    }
    let instances = Some(builder.create_vector(&tables));
    schema::InstanceList::create(builder, &schema::InstanceListArgs { instances })
}

pub(super) fn read_list(body: schema::InstanceList<'_>) -> Result<Vec<InstanceInfo>, MalformedReply> {
    let info = |info: schema::InstanceInfo<'_>| {
        let name = Some(info.instance()).filter(|name| !name.is_empty());
        Ok(InstanceInfo {
            instance: name.map(str::parse).transpose().map_err(|error| MalformedReply(format!("{error}")))?,
            topic_count: info.topic_count(),
            group_count: info.group_count(),
        })
    };
    body.instances().iter().map(info).collect()
}
