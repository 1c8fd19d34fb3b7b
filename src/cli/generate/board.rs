//! The board for Grafana (dashboard JSON, schema 39): rows of panels, each a title, a unit and its queries.

use serde_json::{Value, json};

/// Grafana divides the width of a board into so many columns.
const COLUMNS: u32 = 24;
const ROW_HEIGHT: u32 = 1;
const PANEL_HEIGHT: u32 = 8;
const NUMBER_HEIGHT: u32 = 4;
const SCHEMA_VERSION: u32 = 39;

/// How a panel shows its queries.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// Lines over time.
    Lines,
    /// One number, red from this threshold on, or below it.
    Number { red: Red },
}

#[derive(Clone, Copy, PartialEq)]
enum Red {
    From(f64),
    Below(f64),
    Never,
}

struct Panel {
    title: &'static str,
    /// What there is to know before one reads it.
    about: &'static str,
    /// By Grafana's name.
    unit: &'static str,
    shape: Shape,
    /// Expressions, and what their lines are called.
    queries: &'static [(&'static str, &'static str)],
}

struct Row {
    title: &'static str,
    panels: &'static [Panel],
}

const fn lines(
    title: &'static str,
    about: &'static str,
    unit: &'static str,
    queries: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel { title, about, unit, shape: Shape::Lines, queries }
}

const fn number(
    title: &'static str,
    unit: &'static str,
    red: Red,
    query: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel { title, about: "", unit, shape: Shape::Number { red }, queries: query }
}

const ROWS: [Row; 5] = [
    Row {
        title: "At a glance",
        panels: &[
            number(
                "Shards that serve",
                "percentunit",
                Red::Below(1.0),
                &[("avg(turbopump_shard_serving{instance=~\"$instance\"})", "")],
            ),
            number(
                "Messages in",
                "ops",
                Red::Never,
                &[("sum(rate(rocketmq_messages_in_total{instance=~\"$instance\"}[$__rate_interval]))", "")],
            ),
            number(
                "Messages out",
                "ops",
                Red::Never,
                &[("sum(rate(rocketmq_messages_out_total{instance=~\"$instance\"}[$__rate_interval]))", "")],
            ),
            number(
                "Lag of all groups",
                "short",
                Red::Never,
                &[("sum(rocketmq_consumer_lag_messages{instance=~\"$instance\"})", "")],
            ),
            number(
                "Fullest disk",
                "percentunit",
                Red::From(0.9),
                &[(
                    "max(1 - turbopump_disk_available_bytes{instance=~\"$instance\"} / \
                     turbopump_disk_bytes{instance=~\"$instance\"})",
                    "",
                )],
            ),
            number(
                "Dead letters in the last hour",
                "short",
                Red::From(1.0),
                &[("sum(increase(rocketmq_send_to_dlq_messages_total{instance=~\"$instance\"}[1h]))", "")],
            ),
        ],
    },
    Row {
        title: "Topics",
        panels: &[
            lines(
                "Messages in, by topic",
                "",
                "ops",
                &[(
                    "sum by (topic) (rate(rocketmq_messages_in_total{instance=~\"$instance\", \
                     topic=~\"$topic\"}[$__rate_interval]))",
                    "{{topic}}",
                )],
            ),
            lines(
                "Messages out, by topic and group",
                "",
                "ops",
                &[(
                    "sum by (topic, consumer_group) (rate(rocketmq_messages_out_total{instance=~\"$instance\", \
                     topic=~\"$topic\", consumer_group=~\"$group\"}[$__rate_interval]))",
                    "{{topic}} {{consumer_group}}",
                )],
            ),
            lines(
                "Bytes in and out",
                "",
                "Bps",
                &[
                    (
                        "sum(rate(rocketmq_throughput_in_total{instance=~\"$instance\", topic=~\"$topic\"}[$__rate_interval]))",
                        "in",
                    ),
                    (
                        "sum(rate(rocketmq_throughput_out_total{instance=~\"$instance\", topic=~\"$topic\"}[$__rate_interval]))",
                        "out",
                    ),
                ],
            ),
            lines(
                "Messages kept, by topic",
                "What retention has not removed.",
                "short",
                &[("turbopump_topic_messages{instance=~\"$instance\", topic=~\"$topic\"}", "{{topic}}")],
            ),
        ],
    },
    Row {
        title: "Groups",
        panels: &[
            lines(
                "Lag, by group and topic",
                "Messages that the group has not dealt with.",
                "short",
                &[(
                    "rocketmq_consumer_lag_messages{instance=~\"$instance\", topic=~\"$topic\", consumer_group=~\"$group\"}",
                    "{{consumer_group}} {{topic}}",
                )],
            ),
            lines(
                "Age of the oldest message not dealt with",
                "A line that rises as the time goes by is a consumer that hangs.",
                "s",
                &[(
                    "turbopump_group_oldest_unread_age_seconds{instance=~\"$instance\", topic=~\"$topic\", \
                     consumer_group=~\"$group\"}",
                    "{{consumer_group}} {{topic}}",
                )],
            ),
            lines(
                "Messages given and not acknowledged",
                "",
                "short",
                &[(
                    "rocketmq_consumer_inflight_messages{instance=~\"$instance\", topic=~\"$topic\", \
                     consumer_group=~\"$group\"}",
                    "{{consumer_group}} {{topic}}",
                )],
            ),
            lines(
                "Consumers",
                "Members, receives under way, and RocketMQ's clients.",
                "short",
                &[(
                    "turbopump_group_members{instance=~\"$instance\", consumer_group=~\"$group\"} + \
                     turbopump_group_receives + turbopump_group_readers",
                    "{{consumer_group}}",
                )],
            ),
            lines(
                "Dead letters a minute",
                "Messages that were delivered as often as the group allows.",
                "short",
                &[(
                    "60 * sum by (consumer_group) (rate(rocketmq_send_to_dlq_messages_total{instance=~\"$instance\", \
                     consumer_group=~\"$group\"}[$__rate_interval]))",
                    "{{consumer_group}}",
                )],
            ),
        ],
    },
    Row {
        title: "Where the time goes",
        panels: &[
            lines(
                "99th percentile of every stage",
                "",
                "s",
                &[(
                    "histogram_quantile(0.99, sum by (stage, le) \
                     (rate(turbopump_stage_seconds_bucket{instance=~\"$instance\", shard=~\"$shard\"}[$__rate_interval])))",
                    "{{stage}}",
                )],
            ),
            lines(
                "99.9th percentile of answers and flushes, by shard",
                "",
                "s",
                &[
                    (
                        "histogram_quantile(0.999, sum by (shard, le) (rate(turbopump_stage_seconds_bucket{stage=\"answer\", \
                         instance=~\"$instance\", shard=~\"$shard\"}[$__rate_interval])))",
                        "answer, shard {{shard}}",
                    ),
                    (
                        "histogram_quantile(0.999, sum by (shard, le) (rate(turbopump_stage_seconds_bucket{stage=\"flush\", \
                         instance=~\"$instance\", shard=~\"$shard\"}[$__rate_interval])))",
                        "flush, shard {{shard}}",
                    ),
                ],
            ),
            lines(
                "Stalls of the disk, late wake-ups and long turns a minute",
                "A stall: a write or flush of 50 ms or longer. A late wake-up: the core looked at its rings 10 ms late or later.",
                "short",
                &[
                    (
                        "60 * rate(turbopump_disk_stalls_total{instance=~\"$instance\", shard=~\"$shard\"}[$__rate_interval])",
                        "stalls, shard {{shard}}",
                    ),
                    (
                        "60 * rate(turbopump_wakeups_late_total{instance=~\"$instance\", shard=~\"$shard\"}[$__rate_interval])",
                        "late, shard {{shard}}",
                    ),
                    (
                        "60 * rate(turbopump_turns_long_total{instance=~\"$instance\", shard=~\"$shard\"}[$__rate_interval])",
                        "long turns, shard {{shard}}",
                    ),
                ],
            ),
        ],
    },
    Row {
        title: "Shards",
        panels: &[
            lines(
                "Use of each core",
                "",
                "percentunit",
                &[(
                    "rate(turbopump_cpu_seconds_total{instance=~\"$instance\", shard=~\"$shard\"}[$__rate_interval])",
                    "core of shard {{shard}}",
                )],
            ),
            lines(
                "Bytes written to the log",
                "",
                "Bps",
                &[(
                    "rate(turbopump_log_bytes_written_total{instance=~\"$instance\", shard=~\"$shard\"}[$__rate_interval])",
                    "shard {{shard}}",
                )],
            ),
            lines(
                "Disk that may still be used",
                "",
                "bytes",
                &[(
                    "turbopump_disk_available_bytes{instance=~\"$instance\", shard=~\"$shard\"}",
                    "shard {{shard}}",
                )],
            ),
            lines(
                "Memory of the process, and what clients cause of it",
                "",
                "bytes",
                &[
                    (
                        "process_resident_memory_bytes{instance=~\"$instance\", job=~\"turbopump.*\"}",
                        "process",
                    ),
                    (
                        "sum by (account) (turbopump_memory_bytes{instance=~\"$instance\", shard=~\"$shard\"})",
                        "{{account}}",
                    ),
                ],
            ),
            lines(
                "Connections",
                "",
                "short",
                &[("turbopump_connections{instance=~\"$instance\", shard=~\"$shard\"}", "shard {{shard}}")],
            ),
            lines(
                "Refused a minute",
                "Messages, connections and requests.",
                "short",
                &[
                    (
                        "60 * sum(rate(turbopump_produce_refused_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "messages",
                    ),
                    (
                        "60 * sum(rate(turbopump_connections_dropped_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "connections",
                    ),
                    (
                        "60 * sum(rate(turbopump_requests_denied_total{instance=~\"$instance\"}[$__rate_interval]))",
                        "for want of a key",
                    ),
                ],
            ),
        ],
    },
];

/// The board as JSON.
pub(super) fn text() -> String {
    let (mut panels, mut top, mut id) = (Vec::new(), 0, 0);
    for row in &ROWS {
        id += 1;
        let place = json!({ "x": 0, "y": top, "w": COLUMNS, "h": ROW_HEIGHT });
        panels.push(json!({
            "id": id, "type": "row", "title": row.title, "collapsed": false, "gridPos": place, "panels": [],
        }));
        top += ROW_HEIGHT;
        let mut left = 0;
        for panel in row.panels {
            let (width, height) = size(panel);
            if left + width > COLUMNS {
                (left, top) = (0, top + height);
            }
            id += 1;
            panels.push(panel_value(panel, id, &json!({ "x": left, "y": top, "w": width, "h": height })));
            left += width;
        }
        top += row.panels.last().map_or(0, |panel| size(panel).1);
    }
    let board = json!({
        "uid": "turbopump",
        "title": "turbopump",
        "tags": ["turbopump", "rocketmq"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-1h", "to": "now" },
        "timezone": "browser",
        "annotations": { "list": [] },
        "links": [],
        "templating": { "list": variables() },
        "panels": panels,
    });
    // Strings, numbers and lists only.
    serde_json::to_string_pretty(&board).unwrap_or_default() + "\n"
}

fn size(panel: &Panel) -> (u32, u32) {
    match panel.shape {
        Shape::Number { .. } => (4, NUMBER_HEIGHT),
        Shape::Lines => (12, PANEL_HEIGHT),
    }
}

fn data_source() -> Value {
    json!({ "type": "prometheus", "uid": "${source}" })
}

fn panel_value(panel: &Panel, id: u32, place: &Value) -> Value {
    let targets: Vec<_> = panel
        .queries
        .iter()
        .zip('A'..)
        .map(|((expression, legend), reference)| {
            json!({
                "refId": reference.to_string(), "expr": expression, "legendFormat": legend, "datasource": data_source(),
            })
        })
        .collect();
    let kind = if panel.shape == Shape::Lines { "timeseries" } else { "stat" };
    json!({
        "id": id,
        "type": kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": data_source(),
        "gridPos": place,
        "targets": targets,
        "fieldConfig": { "defaults": defaults(panel), "overrides": [] },
        "options": options(panel),
    })
}

fn defaults(panel: &Panel) -> Value {
    let steps = match panel.shape {
        Shape::Lines | Shape::Number { red: Red::Never } => json!([{ "color": "green", "value": null }]),
        Shape::Number { red: Red::From(from) } => {
            json!([{ "color": "green", "value": null }, { "color": "red", "value": from }])
        }
        Shape::Number { red: Red::Below(below) } => {
            json!([{ "color": "red", "value": null }, { "color": "green", "value": below }])
        }
    };
    json!({ "unit": panel.unit, "min": 0, "thresholds": { "mode": "absolute", "steps": steps } })
}

fn options(panel: &Panel) -> Value {
    match panel.shape {
        Shape::Lines => json!({
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true },
            "tooltip": { "mode": "multi", "sort": "desc" },
        }),
        Shape::Number { .. } => json!({
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            "colorMode": "value", "graphMode": "area", "textMode": "auto", "justifyMode": "auto", "orientation": "auto",
        }),
    }
}

/// The choices at the top of the board.
fn variables() -> Vec<Value> {
    let source = json!({
        "name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0,
    });
    let choice = |name: &str, label: &str, query: &str| {
        json!({
            "name": name, "label": label, "type": "query", "datasource": data_source(),
            "query": { "query": query, "refId": name }, "definition": query,
            "refresh": 2, "sort": 1, "includeAll": true, "multi": true, "allValue": ".*", "hide": 0,
            "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
        })
    };
    vec![
        source,
        choice("instance", "Broker", "label_values(turbopump_info, instance)"),
        choice("shard", "Shard", "label_values(turbopump_shard_serving, shard)"),
        choice("topic", "Topic", "label_values(turbopump_topic_messages, topic)"),
        choice("group", "Group", "label_values(turbopump_group_members, consumer_group)"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Grafana asks of a board: ids of its panels that are there once, places that do not overlap, and a query in each.
    #[test]
    fn the_board_is_one_that_grafana_takes() {
        let board: Value = serde_json::from_str(&text()).expect("JSON");
        let panels = board["panels"].as_array().expect("a list");
        let mut ids: Vec<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
        ids.dedup();
        assert_eq!(ids.len(), panels.len());
        let mut taken = std::collections::HashSet::new();
        for panel in panels {
            let of = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
            assert!(of("x") + of("w") <= u64::from(COLUMNS), "{}", panel["title"]);
            for x in of("x")..of("x") + of("w") {
                for y in of("y")..of("y") + of("h") {
                    assert!(taken.insert((x, y)), "{} lies on another panel", panel["title"]);
                }
            }
            let has_queries = panel["targets"].as_array().is_some_and(|targets| !targets.is_empty());
            assert_eq!(has_queries, panel["type"] != "row", "{}", panel["title"]);
        }
    }
}
