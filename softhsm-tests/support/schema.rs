//! As much of JSON Schema 2020-12 as the served description uses, as a judge of answers. What it does
//! not know it refuses, so that nothing is passed over.

use serde_json::Value;

/// What is wrong with a value under a schema of this document. A member that an object's schema does
/// not name is wrong: an answer shows what is described, and no more.
pub fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    Judge { document, faults: &mut faults }.look(schema, value, "");
    faults
}

struct Judge<'a> {
    document: &'a Value,
    faults: &'a mut Vec<String>,
}

impl Judge<'_> {
    fn fault(&mut self, place: &str, what: &str) {
        self.faults.push(format!("{place}: {what}"));
    }

    fn look(&mut self, schema: &Value, value: &Value, place: &str) {
        if let Some(reference) = schema.get("$ref") {
            let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
            let document = self.document;
            let Some(target) = document.pointer(pointer) else { return self.fault(place, "a reference to nothing") };
            return self.look(target, value, place);
        }
        if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
            let fits = choices.iter().filter(|choice| faults(self.document, choice, value).is_empty()).count();
            if fits != 1 {
                self.fault(place, &format!("{fits} of the choices fit {value}"));
            }
            return;
        }
        for (word, rule) in schema.as_object().unwrap() {
            self.word(word, rule, schema, value, place);
        }
    }

    fn word(&mut self, word: &str, rule: &Value, schema: &Value, value: &Value, place: &str) {
        let fits = match word {
            "type" => match rule {
                Value::String(kind) => is_a(kind, value),
                kinds => kinds.as_array().unwrap().iter().any(|kind| is_a(kind.as_str().unwrap(), value)),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "required" => {
                let is_there = |name: &Value| value.get(name.as_str().unwrap()).is_some();
                !value.is_object() || rule.as_array().unwrap().iter().all(is_there)
            }
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    let place = format!("{place}.{name}");
                    match rule.get(name) {
                        Some(schema) => self.look(schema, member, &place),
                        None => self.fault(&place, "is not described"),
                    }
                }
                true
            }
            "items" => {
                for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.look(rule, item, &format!("{place}[{at}]"));
                }
                true
            }
            "additionalProperties" if rule.is_object() => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    self.look(rule, member, &format!("{place}.{name}"));
                }
                true
            }
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 <= rule.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|list| list.len() as u64 <= rule.as_u64().unwrap()),
            "maxProperties" => value.as_object().is_none_or(|map| map.len() as u64 <= rule.as_u64().unwrap()),
            // `properties` has refused what is not named; patterns are for schemathesis to try.
            "additionalProperties" | "propertyNames" | "pattern" | "description" | "format" | "contentEncoding" => true,
            other => panic!("{other}: teach this judge about it ({schema})"),
        };
        if !fits {
            self.fault(place, &format!("{word} {rule} does not fit {value}"));
        }
    }
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("{other}"),
    }
}
