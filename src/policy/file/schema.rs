//! The JSON Schema of the policy file, for editors, and for us: it knows which keys a table may have.
//!
//! A newcomer would keep a list of the keys for "did you mean"; it would be wrong at the next new key.

use serde_json::{Value, json};

use super::{File, Place};
use crate::policy::source::Step;

/// The JSON Schema (2020-12) of the policy file.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    tidy(&mut schema);
    let settings = schema["$defs"].as_object_mut().and_then(|defs| defs.remove("Settings")).unwrap_or_default();
    for place in [Place::Database, Place::Defaults, Place::Environment] {
        let (key, name) = place.names();
        let is_map = place != Place::Defaults;
        let mut definition = settings.clone();
        definition["description"] = json!(format!("The keys of `[{key}{}]`.", if is_map { ".NAME" } else { "" }));
        if let Some(properties) = definition["properties"].as_object_mut() {
            properties.retain(|key, _| !place.refused().contains(&key.as_str()));
        }
        schema["$defs"][name] = definition;
        let reference = json!(format!("#/$defs/{name}"));
        let property = &mut schema["properties"][key];
        if is_map { property["additionalProperties"]["$ref"] = reference } else { property["$ref"] = reference }
    }
    schema.as_object_mut().map(|root| root.remove("required"));
    schema["title"] = json!("Backstop policy");
    schema
}

/// Takes out `null`, which TOML does not have, joins the lines of descriptions, and refuses unknown keys.
fn tidy(schema: &mut Value) {
    if let Value::Array(list) = schema {
        list.iter_mut().for_each(tidy);
    }
    let Some(object) = schema.as_object_mut() else { return };
    object.values_mut().for_each(tidy);
    if let Some(types) = object.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            object["type"] = only.clone();
        }
    }
    if let Some(choices) = object.get_mut("anyOf").and_then(Value::as_array_mut) {
        choices.retain(|choice| choice["type"] != "null");
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
    if object.contains_key("properties") {
        object.entry("additionalProperties").or_insert(json!(false));
    }
}

/// The keys that the table at a path may have, from the schema.
pub(in crate::policy) fn known_keys(schema: &Value, path: &[Step]) -> Vec<String> {
    let nodes = nodes(schema, path);
    let keys = nodes.into_iter().filter_map(|node| node["properties"].as_object()).flat_map(|keys| keys.keys());
    keys.cloned().collect()
}

/// Whether a table must stand at a path, and no list will do.
pub(in crate::policy) fn wants_table(schema: &Value, path: &[Step]) -> bool {
    let nodes = nodes(schema, path);
    nodes.iter().any(|node| node["properties"].is_object()) && !nodes.iter().any(|node| node["type"] == "array")
}

/// What the schema says about a path, each choice by itself.
fn nodes<'v>(schema: &'v Value, path: &[Step]) -> Vec<&'v Value> {
    path.iter().fold(alternatives(schema, schema), |nodes, step| {
        let below = nodes.into_iter().filter_map(|node| match step {
            Step::Key(name) => node["properties"].get(name).or_else(|| node.get("additionalProperties")),
            Step::Index(_) => node.get("items"),
        });
        below.flat_map(|node| alternatives(schema, node)).collect()
    })
}

/// A schema node with its reference followed and its choices taken apart.
fn alternatives<'v>(root: &'v Value, node: &'v Value) -> Vec<&'v Value> {
    let target = node["$ref"].as_str().and_then(|reference| root.pointer(reference.trim_start_matches('#')));
    let choices = node["anyOf"].as_array().into_iter().flatten();
    std::iter::once(node).chain(target.into_iter().chain(choices).flat_map(|node| alternatives(root, node))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../config/backstop.example.toml");

    fn properties(schema: &Value) -> Vec<(&String, &Value)> {
        let tables = schema["$defs"].as_object().unwrap().values().chain([schema]);
        tables.filter_map(|table| table["properties"].as_object()).flatten().collect()
    }

    #[test]
    fn every_key_tells_its_default() {
        for (key, property) in properties(&schema()) {
            assert!(
                property["description"].as_str().is_some_and(|text| text.contains("Default: ")),
                "{key}: {property}"
            );
        }
    }

    #[test]
    fn every_key_stands_in_the_example() {
        // As a key and not only in a sentence: `key = …`, `[table.key]`, `{ key = … }`, or behind a `#` that switches it off.
        let is_part_of_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let headers = EXAMPLE.lines().filter_map(|line| line.strip_prefix('[')).map(|line| line.trim_end_matches(']'));
        let before_equals =
            EXAMPLE.split('=').map(|text| text.trim_end().rsplit(|c| !is_part_of_key(c)).next().unwrap());
        let keys: Vec<&str> = headers.chain(before_equals).flat_map(|path| path.split('.')).collect();
        // The long words for `diff` and `incr` stand in a sentence: no schedule may have both.
        let is_long_word = |key: &str| matches!(key, "differential" | "incremental") && EXAMPLE.contains(key);
        for (key, _) in properties(&schema()) {
            assert!(
                keys.contains(&key.as_str()) || is_long_word(key),
                "`{key}` is missing from config/backstop.example.toml"
            );
        }
    }

    #[test]
    fn the_schema_says_what_editors_need() {
        let schema = schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["additionalProperties"], false);
        assert!(!schema.to_string().contains("\"null\""));
        assert!(schema["$defs"]["Database"]["properties"]["stanza"].is_object());
        assert!(schema["$defs"]["Defaults"]["properties"].get("stanza").is_none());
        assert_eq!(schema["$defs"]["Promote"]["oneOf"][1]["const"], "any");
    }

    #[test]
    fn known_keys_are_found_through_names_lists_and_choices() {
        let schema = schema();
        let keys = |path: &[&str]| {
            let step = |step: &&str| step.parse().map_or_else(|_| Step::Key(step.to_string()), Step::Index);
            known_keys(&schema, &path.iter().map(step).collect::<Vec<_>>())
        };
        assert!(keys(&[]).contains(&"database".to_owned()));
        assert!(keys(&["database", "orders", "retention"]).contains(&"keep_proven".to_owned()));
        assert!(keys(&["defaults", "schedule", "incr", "0", "retry"]).contains(&"backoff".to_owned()));
        assert!(keys(&["database", "orders", "test_restore", "assert", "3"]).contains(&"equals".to_owned()));
    }
}
