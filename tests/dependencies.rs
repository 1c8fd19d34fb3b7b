//! Holds what turbopump is built from against `deny.toml`: licences, bans and sources, without the network that cargo-deny
//! needs for its database of advisories.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A package that this one is built from, or may be built from with other features.
struct Package {
    name: String,
    license: String,
    /// `None` for one that lies in this repository.
    source: Option<String>,
}

fn packages() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    // What other platforms would need was not downloaded for a build on this one.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"])
        .args(["--filter-platform", &platform])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let package = |package: &Value| Package {
        name: text(&package["name"]),
        license: text(&package["license"]),
        source: package["source"].as_str().map(str::to_owned),
    };
    metadata["packages"].as_array().expect("a list of packages").iter().map(package).collect()
}

fn deny() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    std::fs::read_to_string(path).expect("deny.toml").parse().expect("TOML")
}

fn texts(value: &toml::Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect()
}

/// Whether a licence expression (SPDX, and `/` for `OR` as older manifests have it) can be fulfilled with allowed licences.
/// `AND` binds tighter than `OR`. What is not understood is not allowed.
fn is_allowed(expression: &str, is_known: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut at = 0;
    let allowed = either(&words, &mut at, is_known);
    allowed && at == words.len()
}

fn either(words: &[&str], at: &mut usize, is_known: &dyn Fn(&str) -> bool) -> bool {
    let mut allowed = both(words, at, is_known);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        allowed |= both(words, at, is_known);
    }
    allowed
}

fn both(words: &[&str], at: &mut usize, is_known: &dyn Fn(&str) -> bool) -> bool {
    let mut allowed = single(words, at, is_known);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        allowed &= single(words, at, is_known);
    }
    allowed
}

fn single(words: &[&str], at: &mut usize, is_known: &dyn Fn(&str) -> bool) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let allowed = either(words, at, is_known);
        let is_closed = words.get(*at) == Some(&")");
        *at += 1;
        return allowed && is_closed;
    }
    if words.get(*at) == Some(&"WITH") {
        // An exception allows more than the licence does; none is on the list.
        *at += 2;
        return false;
    }
    // `+`: this version or a later one.
    is_known(word.trim_end_matches('+'))
}

#[test]
fn every_licence_is_allowed() {
    let deny = deny();
    let licenses = &deny["licenses"];
    let everywhere = texts(&licenses["allow"]);
    let exceptions = licenses["exceptions"].as_array().expect("a list");
    let packages = packages();
    for package in &packages {
        let mine = exceptions.iter().find(|exception| exception["crate"].as_str() == Some(&package.name));
        let mine = mine.map_or_else(Vec::new, |exception| texts(&exception["allow"]));
        let is_known = |license: &str| everywhere.contains(&license) || mine.contains(&license);
        let Package { name, license, .. } = package;
        assert!(
            is_allowed(license, &is_known),
            "{name} is under `{license}`, which deny.toml does not allow"
        );
    }
    for exception in exceptions {
        let name = exception["crate"].as_str().expect("a name");
        assert!(
            packages.iter().any(|package| package.name == name),
            "nothing needs the exception for {name}"
        );
    }
}

#[test]
fn nothing_is_built_from_what_is_banned_or_comes_from_elsewhere() {
    let deny = deny();
    let banned = deny["bans"]["deny"].as_array().expect("a list");
    let registries = texts(&deny["sources"]["allow-registry"]);
    for package in packages() {
        let ban = banned.iter().find(|ban| ban["crate"].as_str() == Some(&package.name));
        assert!(ban.is_none(), "{} is banned: {}", package.name, ban.expect("it is there")["reason"]);
        if let Some(source) = package.source {
            let is_known = registries.iter().any(|registry| source == format!("registry+{registry}"));
            assert!(is_known, "{} comes from {source}", package.name);
        }
    }
}

#[test]
fn expressions_of_licences_are_understood() {
    let is_known = |license: &str| ["MIT", "ISC", "MPL-2.0"].contains(&license);
    for allowed in
        ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "MIT AND ISC", "(GPL-3.0 OR MIT) AND ISC", "MPL-2.0+"]
    {
        assert!(is_allowed(allowed, &is_known), "{allowed}");
    }
    for refused in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MIT AND (GPL-3.0 OR BSL-1.1)",
        "GPL-3.0 WITH Classpath-exception-2.0",
        "(MIT",
        "MIT ISC",
    ] {
        assert!(!is_allowed(refused, &is_known), "{refused}");
    }
}
