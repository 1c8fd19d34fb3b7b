//! Rules about the sources that a compiler does not check.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 800;

/// What each module may import from the crate, besides itself, `types`, `limits` and `metrics`.
const IMPORTS: &[(&str, &[&str])] = &[
    // Exceptions with their reasons stand behind the rule.
    ("access", &[]),
    ("api", &[]),
    ("broker", &["api", "clock", "disk", "index", "log", "state", "wire"]),
    (
        "cli",
        &[
            "api", "broker", "client", "clock", "disk", "index", "log", "node", "protocol", "runtime",
            "state", "wire",
        ],
    ),
    ("client", &["api", "protocol", "wire"]),
    ("clock", &[]),
    // `testing`: the faulty disk draws from its random numbers and writes to its trace.
    ("disk", &["clock", "testing"]),
    ("index", &["clock", "disk", "wire"]),
    ("limits", &[]),
    // `api`: a damaged place is reported as readers get it.
    ("log", &["api", "clock", "disk", "wire"]),
    // `api`: a histogram's summary is what `status` shows.
    ("metrics", &["api"]),
    // `disk`: answers are sent from the buffers that were written.
    ("net", &["clock", "disk", "wire"]),
    ("node", &["access", "api", "broker", "clock", "disk", "log", "net", "runtime", "server"]),
    ("protocol", &["access", "api", "clock", "wire"]),
    ("runtime", &["clock"]),
    ("server", &["access", "api", "broker", "clock", "disk", "net", "protocol", "runtime", "wire"]),
    // `api`: settings of groups and topics are stored as clients say them. `index`: what waits for a time is found there.
    ("state", &["api", "disk", "index", "wire"]),
    ("testing", &["api", "broker", "clock", "disk", "index", "log", "protocol", "state", "wire"]),
    ("types", &[]),
    ("wire", &[]),
];
const EVERYWHERE: [&str; 3] = ["types", "limits", "metrics"];
const GLOMMIO: [&str; 6] = ["disk/glommio.rs", "net/", "node/", "runtime/", "server/", "cli/"];
const BANNED: [&str; 5] = ["dbg!", "todo!", "unimplemented!", "FIXME", "XXX"];

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

    /// Lines of the program: neither comments nor tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let program = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let numbered = program.lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Modules that a line names behind `crate::`.
fn imported(line: &str) -> Vec<&str> {
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let behind = line.split("crate::").skip(1);
    behind.map(|rest| rest.split(|letter| !is_name(letter)).next().unwrap_or_default()).collect()
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
        for (number, line) in source.code() {
            for name in imported(line) {
                let fine = name.is_empty()
                    || name == module
                    || EVERYWHERE.contains(&name)
                    || allowed.contains(&name);
                // Only modules count: `crate::Something` is a re-export at the root.
                if !fine && table.contains_key(name) {
                    problems.push(format!("{}:{number}: `{module}` imports `{name}`", source.path));
                }
            }
        }
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
fn sources_are_ascii_short_and_finished() {
    let mut problems = Vec::new();
    for source in sources() {
        let path = &source.path;
        let lines =
            source.text.split("#[cfg(test)]\nmod tests {").next().map_or(0, |text| text.lines().count());
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
    }
    report(&problems);
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
