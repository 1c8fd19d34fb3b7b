//! Rules about the sources that a compiler does not check.

#[path = "tidy/text.rs"]
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use text::{NamedPath, functions, matched, named, paths, without_comments_and_strings};

const LINES_MAX: usize = 800;
/// Lines of code in a function, from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that are longer, with their present length: they may only become shorter. None is left of the rule's first day.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// What only some modules may name, since it cannot be simulated. Everything else awaits the disk's, the clock's and the
/// executor's traits, so that tests run it on a faulty disk, in virtual time, in an order that a seed picks.
const SEAMS: &[Seam] = &[
    Seam {
        what: "std::fs",
        instead: "the `disk` seam",
        modules: &[
            ("access/file.rs", "the file of keys is the operator's, and is read beside the data"),
            ("cli/", "input, output and reports of a command"),
            ("client/tls.rs", "the authorities that a system trusts are in a file"),
            ("disk/", "the seam itself"),
            ("net/tls.rs", "certificates are the operator's files"),
            ("node/", "the directory's lock and marks, before any shard runs"),
            ("runtime/", "what the kernel counts in /proc and /sys"),
            ("types/file_stamp.rs", "tells the versions of a settings file apart"),
            ("types/settings_file.rs", "how settings are read without waiting"),
        ],
    },
    Seam {
        what: "std::thread",
        instead: "a task of the executor",
        modules: &[
            ("cli/", "input from a terminal or a pipe is waited for; the bench's lanes"),
            ("net/listener.rs", "a port in use is tried again before the node runs"),
            ("node/", "threads for signals and for the cores"),
            ("testing/executor.rs", "asks whether a test is failing already"),
        ],
    },
    Seam {
        what: "std::time::Instant",
        instead: "`clock::Clock`",
        modules: &[
            ("cli/", "commands measure for a person; the bench measures"),
            ("client/", "a program's time: drivers read it, and give it to the core with each call"),
            ("net/listener.rs", "a port in use is tried again before the node runs"),
            ("node/", "from start to ready, and how long a stop may take"),
            ("runtime/", "the real clock"),
        ],
    },
    Seam {
        what: "std::time::SystemTime",
        instead: "`clock::Clock`",
        modules: &[
            ("cli/", "times that a person names are looked up now"),
            ("client/producer.rs", "the born time of messages is the program's"),
            ("node/run.rs", "certificates are looked at before any shard has a clock"),
            ("protocol/http/date.rs", "the type of a moment in `httpdate`; its clock is not read"),
            ("runtime/", "the real clock"),
        ],
    },
];

struct Seam {
    what: &'static str,
    instead: &'static str,
    /// Files, or folders with their `/`, below `src`, and why they may.
    modules: &'static [(&'static str, &'static str)],
}

/// What each module may import from the crate, besides itself, `types`, `limits` and `metrics`.
const IMPORTS: &[(&str, &[&str])] = &[
    ("access", &[]),
    // `protocol`: what RocketMQ calls releases of its clients.
    ("admin", &["access", "api", "net", "protocol", "runtime", "views", "wire"]),
    ("api", &["filter"]),
    ("broker", &["api", "clock", "disk", "filter", "index", "log", "state", "wire"]),
    (
        "cli",
        &[
            "api", "broker", "client", "clock", "disk", "filter", "index", "log", "node", "protocol",
            "runtime", "state", "views", "wire",
        ],
    ),
    ("client", &["api", "protocol", "wire"]),
    ("clock", &[]),
    // `testing`: the faulty disk draws from its random numbers and writes to its trace.
    ("disk", &["clock", "testing"]),
    ("filter", &["wire"]),
    ("index", &["clock", "disk", "wire"]),
    ("limits", &[]),
    // `api`: a damaged place is reported as readers get it.
    ("log", &["api", "clock", "disk", "wire"]),
    // `api`: a histogram's summary is what `status` shows.
    ("metrics", &["api"]),
    // `protocol`: routes are what RocketMQ's clients read.
    ("namesrv", &["protocol"]),
    // `disk`: answers are sent from the buffers that were written.
    ("net", &["clock", "disk", "wire"]),
    (
        "node",
        &["access", "admin", "api", "broker", "clock", "disk", "log", "namesrv", "net", "runtime", "server"],
    ),
    ("protocol", &["access", "api", "clock", "filter", "wire"]),
    ("runtime", &["clock"]),
    (
        "server",
        &[
            "access", "api", "broker", "clock", "disk", "filter", "namesrv", "net", "protocol", "runtime",
            "wire",
        ],
    ),
    // `api`: settings of groups and topics are stored as clients say them. `index`: what waits for a time is found there.
    ("state", &["api", "disk", "index", "wire"]),
    ("testing", &["api", "broker", "clock", "disk", "filter", "index", "log", "protocol", "state", "wire"]),
    ("types", &[]),
    ("views", &["api"]),
    ("wire", &[]),
];
/// Rooms that know less than their module may, so that they serve every tenant, and run without a socket, a broker or an
/// executor of their own: what none of them may name stands below.
const BLIND_ROOMS: [&str; 4] = ["server/framed/", "server/called.rs", "server/parked.rs", "server/sessions/"];
const NOT_FOR_BLIND_ROOMS: [&str; 6] = [
    "crate::protocol",
    "crate::wire",
    "crate::server::native",
    "crate::server::http",
    "crate::server::remoting",
    "glommio",
];
/// Where it is told apart what a change of the state is, besides `state`: nobody else carries one out.
const CHANGE_READERS: &[(&str, &str)] = &[
    ("broker/upkeep/verify/holding.rs", "holds a snapshot's places of groups against the ends of the queues"),
    ("cli/log.rs", "shows changes"),
];
/// Where the state is told how far the record of a change has come.
const APPLIERS: &[(&str, &str)] = &[
    ("broker/apply.rs", "Stage::Durable"),
    ("broker/open.rs", "Stage::Replayed"),
    ("broker/upkeep/verify/log_pass.rs", "Stage::Replayed"),
    (WRITER, "Stage::Placed"),
];
const EVERYWHERE: [&str; 3] = ["types", "limits", "metrics"];
const GLOMMIO: [&str; 6] = ["disk/glommio.rs", "net/", "node/", "runtime/", "server/", "cli/"];
/// What only `WRITER` names: what places in the log, and what waits until the placed has reached a level.
const WRITERS_CALLS: [&str; 3] = ["append_batch", "append_step", "level_reached"];
const WRITER: &str = "broker/writer.rs";
/// What only `READER` names in the broker: where messages stand, and what stands there.
const READERS_CALLS: [&str; 8] = [
    "index.lookup(",
    "lookup_in_memory",
    "log.read(",
    "read_shared",
    "share_tail",
    "batch_at",
    "stored_records",
    "stored_records_from",
];
/// The same under other names, which nobody needs.
const READERS_DETOURS: [&str; 4] = ["index().lookup(", "log().read(", "Index::lookup", "CommitLog::read"];
const READER: &str = "broker/reader/";
/// Who else does, and why.
const OTHER_READERS: &[(&str, &str, &str)] = &[
    (
        "broker/find/key_indexing.rs",
        "log.read(",
        "reads all that was stored, in the log's order, to index its keys",
    ),
    ("broker/find/key_indexing.rs", "stored_records", "likewise"),
    ("broker/find/look_up.rs", "stored_records", "looks into a batch that the reader has found for it"),
    (
        "broker/hold/",
        "stored_records",
        "a held message is the only record of a batch that the reader has read",
    ),
    ("broker/upkeep/verify/", "index.lookup(", "holds files against each other while no shard runs"),
];
const BANNED: [&str; 5] = ["dbg!", "todo!", "unimplemented!", "FIXME", "XXX"];
/// They end the process where standard error takes nothing: `cli::output` has `warn` and `tell`, which do not.
const PANICKING_PRINTS: [&str; 2] = ["eprintln!", "eprint!"];
/// Who may print so: what runs in tests only.
const PRINTING: &str = "testing/";

struct Source {
    /// Below `src`.
    path: String,
    text: String,
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// All sources but the generated ones.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let paths =
        paths.into_iter().filter(|path| !path.components().any(|part| part.as_os_str() == "generated"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source in UTF-8");
        let path = path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
        Source { path, text }
    };
    paths.map(read).collect()
}

impl Source {
    fn module(&self) -> &str {
        self.path.split('/').next().expect("a path has a part").trim_end_matches(".rs")
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// How deep the file's module lies below the root.
    fn depth(&self) -> usize {
        self.path.trim_end_matches("/mod.rs").split('/').count()
    }

    fn program(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }

    /// The program without comments and strings.
    fn bare(&self) -> String {
        without_comments_and_strings(self.program())
    }

    /// Lines of the program: neither comments nor tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.program().lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Modules of the crate that a source names: in paths from `crate`, grouped or not, and in paths that climb to the root with
/// `super`. `depth` is how deep the source's own module lies; `log` has 1. The whole crate is `*`.
fn imported(bare: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for NamedPath { line, path } in paths(bare, &["crate", "super"]) {
        let mut parts: Vec<_> = path.split("::").collect();
        let climbed = parts.iter().take_while(|part| **part == "super").count();
        if climbed > 0 && climbed < depth {
            continue;
        }
        parts.drain(..climbed.max(1));
        found.push((line, parts.first().unwrap_or(&"*").to_string()));
    }
    found
}

/// Names of `what` in a source: by its whole path, by a glob, or by a name of the module that holds it, under which it could
/// be reached.
fn names_of(bare: &str, what: &str) -> Vec<NamedPath> {
    let parent = what.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = paths(bare, &["std"]);
    found.retain(|NamedPath { path, .. }| {
        let is_inside = path.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        is_inside || path == parent || path.strip_prefix(parent) == Some("::*")
    });
    found
}

/// What is wrong with a file's functions, given those that were long when the rule was made.
fn long_functions(path: &str, bare: &str, known: &[(&str, &str, usize)]) -> Vec<String> {
    let mut problems = Vec::new();
    let functions = functions(bare);
    for function in functions.iter().filter(|function| function.length > FUNCTION_LINES_MAX) {
        let (name, line, length) = (&function.name, function.line, function.length);
        match known.iter().find(|(file, known, _)| *file == path && known == name) {
            Some((_, _, before)) if length == *before => {}
            Some((_, _, before)) if length > *before => problems
                .push(format!("{path}:{line}: `{name}` has grown from {before} to {length} lines of code")),
            Some(_) => problems
                .push(format!("{path}:{line}: `{name}` is shorter now: say {length} in LONG_FUNCTIONS")),
            None => problems.push(format!(
                "{path}:{line}: `{name}` has {length} lines of code, {FUNCTION_LINES_MAX} are the most"
            )),
        }
    }
    for (_, name, _) in known.iter().filter(|(file, ..)| *file == path) {
        let is_long = |function: &&text::Function| function.length > FUNCTION_LINES_MAX;
        if !functions.iter().filter(is_long).any(|function| function.name == *name) {
            problems.push(format!("{path}: `{name}` is not long any more: take it out of LONG_FUNCTIONS"));
        }
    }
    problems
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn modules_import_what_the_table_allows() {
    let table: BTreeMap<_, _> = IMPORTS.iter().copied().collect();
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let module = source.module();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let Some(allowed) = table.get(module) else {
            problems.push(format!("{}: module `{module}` is not in the table", source.path));
            continue;
        };
        for (number, name) in imported(&source.bare(), source.depth()) {
            let name = name.as_str();
            let fine = name == module || EVERYWHERE.contains(&name) || allowed.contains(&name);
            // Only modules count: `crate::Something` is a re-export at the root.
            if !fine && (name == "*" || table.contains_key(name)) {
                problems.push(format!("{}:{number}: `{module}` imports `{name}`", source.path));
            }
        }
    }
    report(&problems);
}

#[test]
fn rooms_for_every_protocol_know_none() {
    let sources = sources();
    let mut problems = Vec::new();
    for room in BLIND_ROOMS {
        assert!(sources.iter().any(|source| source.path.starts_with(room)), "{room} is not there");
        for source in sources.iter().filter(|source| source.path.starts_with(room) && !source.is_test()) {
            for NamedPath { line, path } in paths(&source.bare(), &["crate", "super", "glommio"]) {
                let path = from_the_root(&path, &source.path);
                let is_within = |name| path == name || path.starts_with(&format!("{name}::"));
                let is_banned = NOT_FOR_BLIND_ROOMS.into_iter().any(is_within);
                if is_banned {
                    problems.push(format!("{}:{line}: `{path}` is not for {room}", source.path));
                }
            }
        }
    }
    report(&problems);
}

/// A path as it would be written from the crate's root, in a file below `src`.
fn from_the_root(path: &str, file: &str) -> String {
    let climbed = path.split("::").take_while(|part| *part == "super").count();
    if climbed == 0 {
        return path.to_owned();
    }
    let mut parts: Vec<_> = file.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
    parts.truncate(parts.len().saturating_sub(climbed));
    parts.insert(0, "crate");
    parts.extend(path.split("::").skip(climbed));
    parts.join("::")
}

#[test]
fn the_writer_alone_places_in_the_log() {
    let sources = sources();
    let mut problems = Vec::new();
    for call in WRITERS_CALLS {
        for source in sources.iter().filter(|source| source.module() != "log" && !source.is_test()) {
            let found = named(&source.bare(), call);
            if source.path == WRITER {
                assert!(!found.is_empty(), "the rule names a call that is not there: `{call}`");
                continue;
            }
            let problem = |line| format!("{}:{line}: `{call}` is for {WRITER} only", source.path);
            problems.extend(found.into_iter().map(problem));
        }
    }
    report(&problems);
}

#[test]
fn the_reader_alone_finds_and_reads_messages() {
    let (mut problems, mut used) = (Vec::new(), Vec::new());
    for source in sources().iter().filter(|source| source.module() == "broker" && !source.is_test()) {
        let (path, bare) = (source.path.as_str(), source.bare());
        for call in READERS_CALLS.into_iter().chain(READERS_DETOURS) {
            let lines = named(&bare, call);
            let is_other = |(room, allowed, _): &&_| path.starts_with(room) && *allowed == call;
            if path.starts_with(READER) {
                used.extend((!lines.is_empty()).then_some((READER, call)));
            } else if let Some((room, ..)) = OTHER_READERS.iter().find(is_other) {
                used.extend((!lines.is_empty()).then_some((*room, call)));
            } else {
                problems
                    .extend(lines.iter().map(|line| format!("{path}:{line}: `{call}` is for {READER} only")));
            }
        }
    }
    for (room, call, _) in OTHER_READERS {
        if !used.contains(&(*room, *call)) {
            problems.push(format!("{room} does not name `{call}`: take it out of OTHER_READERS"));
        }
    }
    for call in READERS_CALLS {
        assert!(
            used.iter().any(|(_, named)| *named == call),
            "the rule has a name that is not there: `{call}`"
        );
    }
    report(&problems);
}

#[test]
fn the_runtime_is_named_at_the_edges_only() {
    let mut problems = Vec::new();
    for source in sources() {
        if GLOMMIO.iter().any(|allowed| source.path.starts_with(allowed)) || source.path == "main.rs" {
            continue;
        }
        for (number, line) in source.code() {
            if line.contains("glommio") && !line.trim().starts_with("pub mod glommio") {
                problems.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    report(&problems);
}

#[test]
fn functions_are_short() {
    let sources = sources();
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        problems.extend(long_functions(&source.path, &source.bare(), LONG_FUNCTIONS));
    }
    for (file, name, _) in LONG_FUNCTIONS {
        if !sources.iter().any(|source| source.path == *file) {
            problems.push(format!("{file}: `{name}` stands in LONG_FUNCTIONS, and the file is gone"));
        }
    }
    report(&problems);
}

#[test]
fn disk_threads_and_clocks_are_named_in_their_modules_only() {
    let sources = sources();
    let mut problems = Vec::new();
    for Seam { what, instead, modules } in SEAMS {
        for source in sources.iter().filter(|source| !source.is_test()) {
            if modules.iter().any(|(module, _)| source.path.starts_with(module)) {
                continue;
            }
            for NamedPath { line, path } in names_of(&source.bare(), what) {
                problems.push(format!("{}:{line}: `{path}`: use {instead} instead of `{what}`", source.path));
            }
        }
        // A module that needs it no more has no exception any more.
        for (module, _) in *modules {
            let mut inside = sources.iter().filter(|source| source.path.starts_with(module));
            if !inside.any(|source| !names_of(&source.bare(), what).is_empty()) {
                problems.push(format!("{module} does not name `{what}`: take it out of SEAMS"));
            }
        }
    }
    report(&problems);
}

/// What the events of a source are about.
fn event_targets(text: &str) -> Vec<&str> {
    text.split("target: \"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// A filter of an operator names targets, so one that is used and not in the list could not be asked for.
#[test]
fn what_events_are_about_is_listed_and_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("a file in UTF-8");
    let levels = read("src/cli/log_level.rs");
    let list =
        levels.split_once("const TARGETS").and_then(|(_, rest)| rest.split_once(';')?.1.split_once("];"));
    let listed: Vec<_> = list.expect("the list of targets").0.split('"').skip(1).step_by(2).collect();
    let manual = read("docs/operations.md");
    let sources = sources();
    let programs: Vec<_> = sources.iter().map(|source| (&source.path, source.program())).collect();
    let mut problems = Vec::new();
    for (path, program) in &programs {
        for target in event_targets(program).iter().filter(|target| !listed.contains(target)) {
            problems.push(format!("{path}: target `{target}` is not among those of cli/log_level.rs"));
        }
    }
    for target in listed {
        if !programs.iter().any(|(_, program)| event_targets(program).contains(&target)) {
            problems.push(format!("no event is about `{target}`: take it out of cli/log_level.rs"));
        }
        if !manual.contains(&format!("| `{target}` |")) {
            problems.push(format!("docs/operations.md does not say what events of `{target}` are"));
        }
    }
    report(&problems);
}

#[test]
fn changes_are_carried_out_in_one_place() {
    let (sources, mut problems, mut used) = (sources(), Vec::new(), Vec::new());
    for source in sources.iter().filter(|source| !source.is_test()) {
        let (path, bare) = (source.path.as_str(), source.bare());
        let imports_state = imported(&bare, source.depth()).iter().any(|(_, name)| name == "state");
        if source.module() == "state" || !imports_state {
            continue;
        }
        // Under another name a change, or a stage, would not be seen.
        for name in ["Change", "HeldChange", "LeaseChange", "Stage"] {
            for hidden in [format!("{name}::*"), format!("{name}::{{"), format!("{name} as ")] {
                let lines = bare.lines().zip(1..).filter(|(line, _)| line.contains(&hidden));
                problems.extend(lines.map(|(_, line)| format!("{path}:{line}: `{hidden}` hides what it is")));
            }
        }
        let lines = matched(&bare, &["Change", "HeldChange", "LeaseChange"]);
        if let Some(reader) = CHANGE_READERS.iter().find(|(file, _)| *file == path) {
            used.extend((!lines.is_empty()).then_some(reader.0));
        } else {
            let problem = |line| format!("{path}:{line}: a change is told apart outside of `State::apply`");
            problems.extend(lines.into_iter().map(problem));
        }
        for stage in ["Stage::Placed", "Stage::Durable", "Stage::Replayed"] {
            let is_known = APPLIERS.contains(&(path, stage));
            match bare.contains(stage) {
                true if is_known => used.push(path),
                true => problems.push(format!("{path}: `{stage}` is not for it to say")),
                false => {}
            }
        }
    }
    let known = CHANGE_READERS.iter().map(|(file, _)| *file).chain(APPLIERS.iter().map(|(file, _)| *file));
    problems
        .extend(known.filter(|file| !used.contains(file)).map(|file| format!("{file}: not needed any more")));
    report(&problems);
}

#[test]
fn sources_are_ascii_short_and_finished() {
    let mut problems = Vec::new();
    for source in sources() {
        let path = &source.path;
        let lines = source.program().lines().count();
        if lines > LINES_MAX {
            problems.push(format!("{path}: {lines} lines, {LINES_MAX} are the most"));
        }
        for (number, line) in (1..).zip(source.text.lines()) {
            if !line.is_ascii() {
                problems.push(format!("{path}:{number}: not ASCII"));
            }
            for banned in BANNED {
                if line.contains(banned) {
                    problems.push(format!("{path}:{number}: `{banned}`"));
                }
            }
        }
        let lines = source.code().filter(|_| !path.starts_with(PRINTING));
        for (number, line) in lines {
            for print in PANICKING_PRINTS.into_iter().filter(|print| line.contains(print)) {
                problems.push(format!("{path}:{number}: `{print}` ends what runs when it fails: use `tell`"));
            }
        }
    }
    report(&problems);
}

/// Whoever comes new reads it to the end, so what is added takes the place of something.
#[test]
fn the_map_of_the_house_is_short() {
    const LINES_MAX: usize = 200;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let lines = fs::read_to_string(path).expect("a file in UTF-8").lines().count();
    assert!(lines <= LINES_MAX, "ARCHITECTURE.md has {lines} lines, {LINES_MAX} are the most");
}

#[test]
fn root_files_hold_no_logic() {
    let mut problems = Vec::new();
    for source in sources() {
        let is_root = source.path.ends_with("/mod.rs") || source.path == "lib.rs";
        if !is_root || source.is_test() {
            continue;
        }
        for (number, line) in source.code() {
            // The seam's traits stand in its root, since they are its documentation.
            if source.path != "disk/mod.rs" && (line.contains("fn ") || line.starts_with("impl")) {
                problems.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    report(&problems);
}

#[test]
fn every_file_belongs_to_a_module() {
    let sources = sources();
    let text_of: BTreeMap<_, _> = sources.iter().map(|source| (source.path.as_str(), &source.text)).collect();
    let mut problems = Vec::new();
    for source in &sources {
        let path = source.path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        if matches!(path, "lib" | "main") {
            continue;
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parents = if parent.is_empty() {
            vec!["lib.rs".to_owned()]
        } else {
            vec![format!("{parent}/mod.rs"), format!("{parent}.rs")]
        };
        let declared = parents
            .iter()
            .filter_map(|parent| text_of.get(parent.as_str()))
            .any(|text| text.lines().any(|line| line.trim_end().ends_with(&format!("mod {name};"))));
        if !declared {
            problems.push(format!("{}: no `mod {name};` in {}", source.path, parents.join(" or ")));
        }
    }
    report(&problems);
}

/// The first map in the documentation of a module: what stands between "```text" and "```".
fn byte_map(module: &str) -> Option<String> {
    let lines = module.lines().map_while(|line| line.strip_prefix("//!"));
    let text: Vec<_> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let begin = text.iter().position(|line| *line == "```text")?;
    let length = text[begin + 1..].iter().position(|line| *line == "```")?;
    Some(text[begin + 1..][..length].join("\n"))
}

/// The maps in a document, each with the source that it names in front of it.
fn quoted_maps(document: &str) -> Vec<(&str, &str)> {
    let quoted = document.split("<!-- ").skip(1);
    let parts = quoted.filter_map(|rest| {
        let (source, rest) = rest.split_once(" -->\n```text\n")?;
        Some((source, rest.split_once("\n```")?.0))
    });
    parts.collect()
}

/// Who reads a format there must not be told an older one. With TURBOPUMP_UPDATE_DOCS=1 the document is brought in line.
#[test]
fn the_byte_maps_in_the_documents_are_those_of_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("docs/formats.md");
    let document = fs::read_to_string(&path).expect("a file in UTF-8");
    let maps = quoted_maps(&document);
    assert!(maps.len() >= 10, "only {} maps were found in docs/formats.md", maps.len());
    let (mut problems, mut updated) = (Vec::new(), document.clone());
    for (source, quoted) in maps {
        let module = fs::read_to_string(root.join(source)).unwrap_or_default();
        match byte_map(&module) {
            Some(map) if map == quoted => {}
            Some(map) => {
                updated = updated.replace(quoted, &map);
                problems.push(format!(
                    "docs/formats.md: the map of {source} has changed: bring it in line with \
                     TURBOPUMP_UPDATE_DOCS=1 cargo test --test tidy, and read what stands around it"
                ));
            }
            None => problems.push(format!("docs/formats.md: {source} has no map: name the file that has it")),
        }
    }
    if std::env::var_os("TURBOPUMP_UPDATE_DOCS").is_some() {
        fs::write(&path, updated).expect("the document can be written");
    }
    report(&problems);
}

/// The rules above can fail: what they find in small texts.
mod rules {
    use super::*;

    fn imported_names(text: &str, depth: usize) -> Vec<String> {
        let bare = without_comments_and_strings(text);
        imported(&bare, depth).into_iter().map(|(line, name)| format!("{line} {name}")).collect()
    }

    #[test]
    fn imports_are_seen_in_groups_and_expressions() {
        let grouped =
            "use crate::{\n    api::Status,\n    log::{Damage, read::{self, Reader}},\n    types as t,\n};\n";
        assert_eq!(imported_names(grouped, 1), ["2 api", "3 log", "3 log", "3 log", "4 types"]);
        assert_eq!(
            imported_names("use crate::broker::Broker;\nlet x = crate::wire::batch();", 1),
            ["1 broker", "2 wire"]
        );
        assert_eq!(imported_names("pub(in crate::log) fn f() {}", 1), ["1 log"]);
        assert_eq!(imported_names("use crate::*;", 1), ["1 *"]);
        assert_eq!(imported_names("use crate::{self, api};", 1), ["1 *", "1 api"]);
    }

    #[test]
    fn patterns_are_told_from_values() {
        let lines = |text: &str| text::matched(&without_comments_and_strings(text), &["Change"]);
        assert_eq!(
            lines(
                "match change {\n    Change::Topic(_) => {}\n    Change::Lease { a, .. }\n    | Change::B => 1,\n}"
            ),
            [2, 3, 4]
        );
        assert_eq!(lines("if let Change::Topic(Topic { id, .. }) = change {}"), [1]);
        assert_eq!(lines("list.filter(|change| matches!(change, Change::Topic(_)))"), [1]);
        assert_eq!(lines("let change = Change::Topic(topic); place(&[Change::B, Change::C { a }])?;"), []);
        assert_eq!(lines("HeldChange::Moved => {}"), [], "of another enum");
    }

    #[test]
    fn imports_that_climb_to_the_root_are_seen() {
        assert_eq!(imported_names("use super::super::broker::Broker;", 2), ["1 broker"]);
        assert_eq!(imported_names("use super::{broker, wire::{batch}};", 1), ["1 broker", "1 wire"]);
        assert!(imported_names("use super::super::groups::Group;", 3).is_empty(), "within the module");
    }

    #[test]
    fn paths_that_climb_are_known_from_the_root() {
        let of = |path, file| from_the_root(path, file);
        assert_eq!(
            of("super::super::native::Native", "server/framed/calls.rs"),
            "crate::server::native::Native"
        );
        assert_eq!(of("super::http", "server/framed/mod.rs"), "crate::server::http");
        assert_eq!(of("crate::wire::frame", "server/framed/calls.rs"), "crate::wire::frame");
    }

    #[test]
    fn what_is_said_imports_nothing() {
        let text = r##"
            // use crate::broker::Broker;
            /* crate::broker /* nested */ crate::broker */
            let text = "crate::broker \\\" crate::broker";
            let raw = r#"crate::broker " crate::broker"#;
            let (quote, slash, lifetime) = ('"', '\\', Foo::<'static>::new());
            use crate::log::Log; // crate::broker
        "##;
        assert_eq!(imported_names(text, 1), ["7 log"]);
    }

    #[test]
    fn seams_are_seen_however_they_are_named() {
        let named = |text: &str, what: &str| names_of(&without_comments_and_strings(text), what).len();
        for text in [
            "use std::fs;",
            "use std::fs::File;",
            "use std::{\n    collections::HashMap,\n    fs::{self, File},\n};",
            "let text = std::fs::read(path);",
            "use std::*;",
            "use ::std::fs as disk;",
        ] {
            assert!(named(text, "std::fs") > 0, "{text}");
        }
        for text in [
            "use std::time::{Duration, Instant};",
            "std::time::Instant::now()",
            "use std::time;",
            "use std::time::{self, Duration};",
            "use std::time::*;",
            "use std::{time};",
        ] {
            assert!(named(text, "std::time::Instant") > 0, "{text}");
        }
        assert_eq!(named("use std::time::{Duration, SystemTime};", "std::time::Instant"), 0);
        assert_eq!(named("use std::path::Path; use rustix::fs; other::std::fs;", "std::fs"), 0);
        assert_eq!(named("std::fsx::f()", "std::fs"), 0);
    }

    #[test]
    fn names_and_calls_are_seen_however_their_lines_are_broken() {
        let lines = |text: &str, what: &str| named(&without_comments_and_strings(text), what);
        assert_eq!(lines("log\n    .read(1);\nlog.read (2);", "log.read("), [1, 3]);
        assert_eq!(lines("let f = CommitLog::append_step;\nreturn append_step(1)", "append_step"), [1, 2]);
        assert!(
            lines("append_steps(); try_append_step(); catalog.read(1); \"log.read(\"", "append_step")
                .is_empty()
        );
        assert!(lines("catalog.read(1); \"log.read(\" // log.read(", "log.read(").is_empty());
    }

    #[test]
    fn maps_are_found_in_documents_and_sources() {
        let module = "//! A file.\n//!\n//! ```text\n//! 0  u8  kind\n//!\n//! 1  body\n//! ```\n//! ```text\n//! no\n//! ```\n";
        assert_eq!(byte_map(module).as_deref(), Some("0  u8  kind\n\n1  body"));
        assert_eq!(byte_map("//! None.\nuse x;\n//! ```text\n//! 0\n//! ```\n"), None);
        let document = "# A\n<!-- a.rs -->\n```text\n0  u8\n\n1\n```\nand <!-- b.rs -->\n```text\nx\n```\n";
        assert_eq!(quoted_maps(document), [("a.rs", "0  u8\n\n1"), ("b.rs", "x")]);
    }

    #[test]
    fn targets_are_found_in_events() {
        let text = "info!(target: \"log\", \"x\");\nwarn!(\n    target: \"net\",\n    \"y\"\n);";
        assert_eq!(event_targets(text), ["log", "net"]);
    }

    fn function(name: &str, statements: usize) -> String {
        let body = "    // A comment.\n\n    let text = \"}\";\n".repeat(statements);
        format!("async fn {name}<T>(x: [u8; 3]) -> Option<fn(u8)>\nwhere\n    T: Copy,\n{{\n{body}}}\n")
    }

    #[test]
    fn the_length_of_a_function_is_its_code() {
        let text = format!("trait T {{\n    fn declared(&self) -> [u8; 2];\n}}\n{}", function("f", 3));
        let bare = without_comments_and_strings(&text);
        let found = functions(&bare);
        assert_eq!(found, [text::Function { name: "f".into(), line: 4, length: 8 }]);
    }

    #[test]
    fn functions_may_only_become_shorter() {
        let head = 5;
        let problems = |lines: usize, known: &[(&str, &str, usize)]| {
            let text = without_comments_and_strings(&function("f", lines - head));
            long_functions("a.rs", &text, known)
        };
        assert!(problems(FUNCTION_LINES_MAX, &[]).is_empty());
        assert!(problems(FUNCTION_LINES_MAX + 1, &[])[0].contains("70 are the most"));
        assert!(problems(80, &[("a.rs", "f", 80), ("b.rs", "g", 80)]).is_empty());
        assert!(problems(81, &[("a.rs", "f", 80)])[0].contains("has grown from 80 to 81"));
        assert!(problems(79, &[("a.rs", "f", 80)])[0].contains("say 79"));
        assert!(problems(60, &[("a.rs", "f", 80)])[0].contains("take it out"));
        assert!(problems(80, &[("b.rs", "f", 80)])[0].contains("70 are the most"));
    }
}
