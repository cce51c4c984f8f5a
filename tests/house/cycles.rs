//! Finds cyclic dependencies between the files of `src/`, from the paths that each file names.

use std::collections::{BTreeMap, BTreeSet};

/// A path of modules, `["store", "query", "pages"]`; empty for `lib.rs`.
type Module = Vec<String>;

#[derive(Default)]
struct File {
    /// The paths that the file names, and whether it only re-exports their target.
    named: Vec<(Module, bool)>,
    /// The paths that the file re-exports, by name.
    re_exports: BTreeMap<String, Module>,
}

/// Returns the files of each dependency cycle. `sources` has each file's module, and its code without
/// comments and tests.
pub(crate) fn cycles(sources: &[(Module, String)]) -> Vec<Vec<String>> {
    let mut files: BTreeMap<Module, File> =
        sources.iter().map(|(module, _)| (module.clone(), File::default())).collect();
    for (module, code) in sources {
        let mut file = File::default();
        let mut rest = String::new();
        for statement in code.split_inclusive(';') {
            let Some(at) = statement.find("use ").filter(|at| is_import(statement, *at)) else {
                rest.push_str(statement);
                continue;
            };
            let is_re_exported = statement[..at]
                .trim_end()
                .lines()
                .last()
                .is_some_and(|line| line.trim_start().starts_with("pub"));
            for path in expand(&statement[at + 4..statement.len() - 1], &[]) {
                let Some(path) = absolute(module, &path, &files) else { continue };
                if is_re_exported && let Some(name) = path.last() {
                    file.re_exports.insert(name.clone(), path.clone());
                }
                file.named.push((path, is_re_exported));
            }
        }
        for path in inline_paths(&rest) {
            file.named.extend(absolute(module, &path, &files).map(|path| (path, false)));
        }
        files.insert(module.clone(), file);
    }
    let dependencies: BTreeMap<&Module, BTreeSet<Module>> = files
        .iter()
        .map(|(module, file)| (module, dependencies_of(module, file, &files)))
        .collect();
    let reach = |from: &Module| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            next.extend(
                dependencies[&module]
                    .iter()
                    .filter(|module| seen.insert((*module).clone()))
                    .cloned(),
            );
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        files.keys().map(|module| (module, reach(module))).collect();
    let mut cycles = BTreeSet::new();
    for module in files.keys().filter(|module| reached[module].contains(*module)) {
        let cycle = reached[module].iter().filter(|other| reached[other].contains(module));
        cycles.insert(cycle.map(|module| module.join("/")).collect::<Vec<_>>());
    }
    cycles.into_iter().collect()
}

fn is_import(statement: &str, at: usize) -> bool {
    let before = statement[..at].rsplit('\n').next().unwrap_or_default().trim_start();
    before.is_empty() || (before.starts_with("pub") && !before.contains(['=', '{']))
}

/// Expands `a::{b, c::d as e}` to `a::b` and `a::c::d`.
fn expand(text: &str, prefix: &[String]) -> Vec<Module> {
    let text = text.trim();
    let segments = |path: &str| {
        path.split("::")
            .map(|it| it.trim().to_owned())
            .filter(|it| !it.is_empty())
            .collect::<Vec<_>>()
    };
    let Some((before, list)) = text.split_once('{') else {
        let path = text.split(" as ").next().unwrap_or_default();
        return vec![[prefix, &segments(path)].concat()];
    };
    let prefix = [prefix, &segments(before)].concat();
    let list = list.strip_suffix('}').unwrap_or(list);
    let (mut depth, mut begin, mut paths) = (0, 0, Vec::new());
    for (at, character) in list.char_indices().chain([(list.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !list[begin..at].trim().is_empty() {
                    paths.extend(expand(&list[begin..at], &prefix));
                }
                begin = (at + 1).min(list.len());
            }
            _ => {}
        }
    }
    paths
}

fn inline_paths(code: &str) -> Vec<Module> {
    code.split(|it: char| !(it.is_alphanumeric() || it == '_' || it == ':'))
        .filter(|word| ["crate::", "super::", "self::"].iter().any(|root| word.starts_with(root)))
        .map(|word| word.split("::").filter(|it| !it.is_empty()).map(str::to_owned).collect())
        .collect()
}

fn absolute(module: &Module, path: &[String], files: &BTreeMap<Module, File>) -> Option<Module> {
    let (mut base, mut path) = (module.clone(), path);
    match path.first()?.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        "self" => path = &path[1..],
        "super" => {
            while path.first().is_some_and(|it| it == "super") {
                base.pop();
                path = &path[1..];
            }
        }
        first => {
            let child = [base.as_slice(), &[first.to_owned()]].concat();
            files.get(&child)?;
        }
    }
    Some([base, path.to_vec()].concat())
}

/// Follows re-exports to the file that defines the target of a path.
fn defined_in(path: &Module, files: &BTreeMap<Module, File>, hops: u8) -> Option<Module> {
    let length = (0..=path.len()).rev().find(|length| files.contains_key(&path[..*length]))?;
    let (module, rest) = path.split_at(length);
    let re_exported = rest.first().and_then(|name| files[module].re_exports.get(name));
    match re_exported {
        Some(target) if hops > 0 => {
            defined_in(&[target.as_slice(), &rest[1..]].concat(), files, hops - 1)
        }
        Some(_) => None,
        None => Some(module.to_vec()),
    }
}

/// A module does not depend on its own children by re-exporting what they define.
fn dependencies_of(
    module: &Module,
    file: &File,
    files: &BTreeMap<Module, File>,
) -> BTreeSet<Module> {
    let mut dependencies = BTreeSet::new();
    for (path, is_re_exported) in &file.named {
        if let Some(target) = defined_in(path, files, 8)
            && target != *module
            && !(*is_re_exported && target.starts_with(module))
        {
            dependencies.insert(target);
        }
    }
    dependencies
}

#[test]
fn a_cycle_through_a_re_export_is_found() {
    let file = |path: &str, code: &str| {
        (path.split('/').filter(|it| !it.is_empty()).map(str::to_owned).collect(), code.to_owned())
    };
    let mut sources = vec![
        file("", "pub mod a;\npub mod b;"),
        file("a", "mod one;\npub use one::{One, Other};"),
        file("a/one", "use crate::b::{self, Two};\nfn it() {}"),
        file("b", "fn it() -> Two { Two }"),
    ];
    assert_eq!(cycles(&sources), Vec::<Vec<String>>::new());
    sources[3].1 += "use crate::a::One;";
    assert_eq!(cycles(&sources), [["a/one", "b"]]);
    sources[3].1 = "fn it() { super::a::Other::new(); }".into();
    assert_eq!(cycles(&sources), [["a/one", "b"]]);
}
