//! The request and the reply about settings, in both directions.

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use crate::api::{Failure, Reply, Request, SettingChange, SettingInfo};
use crate::limits;
use crate::wire::generated as schema;

type Builder = FlatBufferBuilder<'static>;

/// The request, as a client writes it.
pub(super) fn request_body(
    builder: &mut Builder,
    changes: &[SettingChange],
) -> (schema::RequestBody, WIPOffset<UnionWIPOffset>) {
    let mut tables = Vec::with_capacity(changes.len());
    for change in changes {
        let name = Some(builder.create_string(&change.name));
        let value = change.value.as_ref().map(|value| builder.create_string(value));
        tables.push(schema::SettingChange::create(builder, &schema::SettingChangeArgs { name, value }));
    }
    let changes = Some(builder.create_vector(&tables));
    let table = schema::Settings::create(builder, &schema::SettingsArgs { changes });
    (schema::RequestBody::Settings, table.as_union_value())
}

/// The request, as the server reads it. What the names and values mean is for the node to say.
pub(super) fn changes(body: schema::Settings<'_>) -> Result<Request, Failure> {
    let change = |change: schema::SettingChange<'_>| {
        let value = change.value().map(str::to_owned);
        SettingChange { name: change.name().to_owned(), value }
    };
    let changes: Vec<_> = body.changes().iter().flatten().map(change).collect();
    let bytes = |change: &SettingChange| change.name.len() + change.value.as_ref().map_or(0, String::len);
    let (count, most) = (changes.len(), limits::SETTING_CHANGES_MAX);
    if count > most || changes.iter().any(|change| bytes(change) > limits::SETTING_CHANGE_BYTES_MAX) {
        let most_bytes = limits::SETTING_CHANGE_BYTES_MAX;
        return Err(Failure::invalid(format!(
            "{count} settings are to be changed, or one of them is too long: {most} are the most at once, of {most_bytes} bytes each"
        )));
    }
    Ok(Request::Settings(changes))
}

/// The reply, as the server writes it.
pub(super) fn list_table(
    builder: &mut Builder,
    settings: &[SettingInfo],
) -> WIPOffset<schema::SettingList<'static>> {
    let mut tables = Vec::with_capacity(settings.len());
    for setting in settings {
        let arguments = schema::SettingInfoArgs {
            name: Some(builder.create_string(&setting.name)),
            value: setting.value.as_ref().map(|value| builder.create_string(value)),
            origin: Some(builder.create_string(&setting.origin)),
            live: setting.is_live,
        };
        tables.push(schema::SettingInfo::create(builder, &arguments));
    }
    let settings = Some(builder.create_vector(&tables));
    schema::SettingList::create(builder, &schema::SettingListArgs { settings })
}

/// The reply, as a client reads it.
pub(super) fn reply(body: Option<schema::SettingList<'_>>) -> Option<Reply> {
    let info = |setting: schema::SettingInfo<'_>| SettingInfo {
        name: setting.name().to_owned(),
        value: setting.value().map(str::to_owned),
        origin: setting.origin().to_owned(),
        is_live: setting.live(),
    };
    body.map(|body| Reply::Settings(body.settings().iter().map(info).collect()))
}
