//! The schema in `docs/` and the program agree: what the one allows the other reads, and the reverse.

use jin_txn::internals::manifest;
use serde_json::{Value, json};

fn schema() -> Value {
    let text = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/apply.schema.json")).unwrap();
    serde_json::from_slice(&text).expect("the schema is JSON")
}

/// The part of JSON Schema that ours is written in; anything else in it is an error here.
fn allows(root: &Value, schema: &Value, value: &Value) -> bool {
    schema.as_object().expect("a schema is an object").iter().all(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "title" | "description" | "default" | "examples" | "$defs" => true,
        "$ref" => {
            let at = rule.as_str().unwrap().strip_prefix('#').unwrap();
            allows(root, root.pointer(at).expect("a reference leads somewhere"), value)
        }
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            other => panic!("an unknown type {other}"),
        },
        "const" => value == rule,
        "enum" => rule.as_array().unwrap().contains(value),
        "required" => rule.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
        "additionalProperties" => {
            let known = &schema["properties"];
            value.as_object().is_none_or(|o| o.keys().all(|name| known.get(name).is_some()))
        }
        "properties" => value.as_object().is_none_or(|o| {
            o.iter().all(|(name, inner)| rule.get(name).is_none_or(|schema| allows(root, schema, inner)))
        }),
        "items" => value.as_array().is_none_or(|all| all.iter().all(|inner| allows(root, rule, inner))),
        "oneOf" => rule.as_array().unwrap().iter().filter(|one| allows(root, one, value)).count() == 1,
        other => panic!("the schema uses `{other}`, which this test does not know"),
    })
}

#[test]
fn what_the_schema_allows_is_read_and_what_it_does_not_is_refused() {
    let schema = schema();
    let examples = schema["examples"].as_array().expect("it has examples").clone();
    assert!(examples.len() >= 3);
    for example in &examples {
        assert!(allows(&schema, &schema, example), "{example}");
        manifest::parse(example.to_string().as_bytes()).unwrap_or_else(|e| panic!("{example}: {e}"));
    }
    for bad in [
        json!({}),
        json!({"version": 2}),
        json!({"version": 1, "force": true}),
        json!({"version": 1, "refs": [{"to": "main"}]}),
        json!({"version": 1, "refs": [{"ref": "refs/heads/a"}]}),
        json!({"version": 1, "refs": [{"ref": "refs/heads/a", "to": "b", "delete": true}]}),
        json!({"version": 1, "refs": [{"ref": "refs/heads/a", "to": 1}]}),
        json!({"version": 1, "files": [{"path": "a", "content": "", "mode": "100600"}]}),
        json!({"version": 1, "files": [{"path": "a", "content": "", "owner": "me"}]}),
        json!({"version": 1, "files": [{"path": "a", "content": "", "source": "b"}]}),
    ] {
        assert!(!allows(&schema, &schema, &bad), "the schema allows {bad}");
        assert!(manifest::parse(bad.to_string().as_bytes()).is_err(), "the program reads {bad}");
    }
}
