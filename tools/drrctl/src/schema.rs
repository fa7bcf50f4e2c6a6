// SPDX-License-Identifier: GPL-2.0

//! Checks JSON against the schemas in Documentation/drrctl, for tests.

use serde::Serialize;

/// Panics if the JSON of `value` doesn't match the schema `name`.
pub fn check(name: &str, value: &impl Serialize) {
    let path = format!(
        "{}/../../Documentation/drrctl/{name}.schema.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let schema = serde_json::from_str(&text).expect("JSON");
    let value = serde_json::to_value(value).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<_> = validator
        .iter_errors(&value)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect();
    assert!(errors.is_empty(), "{errors:#?} in {value:#}");
}
