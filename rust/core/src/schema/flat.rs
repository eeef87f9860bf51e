//! Teaches `jsonschema` to read flat JSON ([`crate::json::flat`]).

use std::borrow::Cow;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, cmp};
use serde_json::{Number, Value};

use crate::json::Kind;
use crate::json::flat::{Entry, FlatNode};

/// The name of this representation of JSON, for `jsonschema`.
pub(super) struct FlatJson;

/// The values inside an array, or inside an object without its keys.
pub(super) struct Inner<'a> {
    node: FlatNode<'a>,
    left: u32,
}

impl<'a> Inner<'a> {
    fn of(outer: FlatNode<'a>) -> Self {
        Self { node: FlatNode { index: outer.index + 1, ..outer }, left: outer.entry().count }
    }
}

impl<'a> Iterator for Inner<'a> {
    type Item = FlatNode<'a>;

    fn next(&mut self) -> Option<FlatNode<'a>> {
        self.left = self.left.checked_sub(1)?;
        let node = self.node;
        self.node.index = node.entry().after as usize;
        Some(node)
    }
}

pub(super) struct Members<'a>(Inner<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, FlatNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.node;
        self.0.left.checked_sub(1)?;
        self.0.node.index += 1;
        let value = self.0.next()?;
        Some((key.raw(), value))
    }
}

impl Json for FlatJson {
    type Node<'a> = FlatNode<'a>;
    type PreparedKey = String;
    type StringBuffer = (String, Vec<Entry>);

    const KEYS_PER_LOOKUP: usize = 2;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(
        (text, entries): &mut (String, Vec<Entry>),
        string: &str,
        f: impl FnOnce(FlatNode<'_>) -> T,
    ) -> T {
        string.clone_into(text);
        entries.clear();
        let end = string.len() as u32;
        entries.push(Entry { kind: Kind::String, escaped: false, start: 0, end, count: 0, after: 1 });
        f(FlatNode { text, entries, index: 0 })
    }
}

impl<'a> Node<'a, FlatJson> for FlatNode<'a> {
    type Object = Self;
    type Array = Self;
    type Number = Number;

    fn as_object(&self) -> Option<Self> {
        (self.entry().kind == Kind::Object).then_some(*self)
    }

    fn as_array(&self) -> Option<Self> {
        (self.entry().kind == Kind::Array).then_some(*self)
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        self.string()
    }

    fn as_number(&self) -> Option<Number> {
        if self.is_number() { self.raw().parse().ok() } else { None }
    }

    fn as_boolean(&self) -> Option<bool> {
        (self.entry().kind == Kind::Bool).then(|| self.raw() == "true")
    }

    fn is_null(&self) -> bool {
        self.entry().kind == Kind::Null
    }

    fn is_number(&self) -> bool {
        self.entry().kind == Kind::Number
    }

    fn json_type(&self) -> JsonType {
        match self.entry().kind {
            Kind::Null => JsonType::Null,
            Kind::Bool => JsonType::Boolean,
            Kind::Number => JsonType::Number,
            Kind::String => JsonType::String,
            Kind::Array => JsonType::Array,
            Kind::Object => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (self.string(), expected) {
            (Some(string), Value::String(expected)) => string == *expected,
            (Some(_), _) | (None, Value::String(_)) => false,
            _ => cmp::equal(&self.to_value(), expected),
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self.string() {
            Some(string) => Value::String(string.into_owned()),
            None => serde_json::from_str(self.raw()).expect("was read before"),
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::tagged(self.entries.as_ptr() as usize, self.index as u32))
    }
}

impl<'a> Object<'a, FlatJson> for FlatNode<'a> {
    type Node = Self;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        self.entry().count as usize
    }

    fn get(&self, key: &String) -> Option<Self> {
        self.members().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn members(&self) -> Members<'a> {
        Members(Inner::of(*self))
    }
}

impl<'a> Array<'a, FlatJson> for FlatNode<'a> {
    type Node = Self;
    type ElementsIter = Inner<'a>;

    fn len(&self) -> usize {
        self.entry().count as usize
    }

    fn elements(&self) -> Inner<'a> {
        Inner::of(*self)
    }
}
