//! Judging arguments against packed schemas.

use jsonschema::json::Node as _;
use serde_json::Value;
use smallvec::SmallVec;

use crate::json::flat::{Entry, FlatNode};
use crate::json::{Kind, same};

use super::code::{ANY_OF, CHOICES, Code, ITEMS, MEMBERS, UNUSUAL, WHOLE, bit};

/// Most sets of tools fit into this many bytes.
const SHORT: usize = 256;

/// A set of tools.
#[derive(Debug, Default)]
pub(in crate::schema) struct Compact {
    /// Up to [`SHORT`] bytes lie in this struct, which saves a cache miss.
    code: SmallVec<[u8; SHORT]>,
    values: Box<[Value]>,
}

/// The argument schema of a tool.
#[derive(Debug, Clone, Copy)]
pub(in crate::schema) struct Usual<'a> {
    schema: Code<'a>,
    values: &'a [Value],
}

impl Compact {
    /// `code` in the layout of [`super`]; `values` are the choices that it refers to.
    pub(super) fn new(code: Vec<u8>, values: Vec<Value>) -> Self {
        Self { code: code.into(), values: values.into() }
    }

    /// The tool called `name`: its index, and its schema if that is usual.
    pub fn tool(&self, name: &str) -> Option<(usize, Option<Usual<'_>>)> {
        let mut schemas = Code(&self.code);
        let mut names = schemas.long();
        let mut index = 0;
        while !names.is_empty() {
            let found = same(names.long().0, name.as_bytes());
            let place = names.number();
            if found {
                let usual = place != UNUSUAL as usize;
                let usual = usual.then(|| Usual { schema: Code(&schemas.0[place..]), values: &self.values });
                return Some((index, usual));
            }
            index += 1;
        }
        None
    }
}

impl Usual<'_> {
    pub fn accepts(self, arguments: FlatNode<'_>) -> bool {
        let FlatNode { text, entries, index } = arguments;
        Judge { json: text.as_bytes(), arguments, entries, values: self.values }.accepts(self.schema, index)
    }
}

/// Checks values against schemas. A value is the index of its entry.
struct Judge<'a> {
    arguments: FlatNode<'a>,
    json: &'a [u8],
    entries: &'a [Entry],
    values: &'a [Value],
}

impl Judge<'_> {
    fn accepts(&self, mut schema: Code<'_>, value: usize) -> bool {
        let [types, parts] = schema.bytes();
        let kind = self.entries[value].kind;
        if types & bit(kind) == 0 && (kind != Kind::Number || types & WHOLE == 0 || !self.is_whole(value)) {
            return false;
        }
        if parts == 0 {
            return true;
        }
        if parts & MEMBERS != 0 {
            let members = Code(schema.short());
            if kind == Kind::Object && !self.accepts_members(members, value) {
                return false;
            }
        }
        if parts & ITEMS != 0 {
            let items = Code(schema.short());
            if kind == Kind::Array && !self.accepts_items(items, value) {
                return false;
            }
        }
        if parts & CHOICES != 0 && !self.is_choice(Code(schema.short()), value) {
            return false;
        }
        parts & ANY_OF == 0 || self.accepts_any(Code(schema.short()), value)
    }

    /// An object in `entries` has each key once.
    fn accepts_members(&self, mut members: Code<'_>, object: usize) -> bool {
        let required = u16::from_le_bytes(members.bytes());
        let others = Code(members.short());
        let (mut seen, mut next) = (0, members);
        let (mut key, end) = (object + 1, self.entries[object].after as usize);
        while key < end {
            let said = self.raw(key);
            // Members mostly come in the schema's order: go on after the last one that was found.
            let mut member = Member::find(&mut next, said);
            if member.is_none() {
                next = members;
                member = Member::find(&mut next, said);
            }
            let schema = match member {
                Some(Member { required, schema }) => {
                    seen += u16::from(required);
                    schema
                }
                None => others,
            };
            if !self.accepts(schema, key + 1) {
                return false;
            }
            key = self.entries[key + 1].after as usize;
        }
        seen == required
    }

    fn accepts_items(&self, items: Code<'_>, array: usize) -> bool {
        let (mut item, end) = (array + 1, self.entries[array].after as usize);
        while item < end {
            if !self.accepts(items, item) {
                return false;
            }
            item = self.entries[item].after as usize;
        }
        true
    }

    fn is_choice(&self, mut choices: Code<'_>, value: usize) -> bool {
        let others = choices.number()..choices.number();
        let value = FlatNode { index: value, ..self.arguments };
        let Some(string) = value.string() else {
            return self.values[others].iter().any(|choice| value.equals_value(choice));
        };
        while !choices.is_empty() {
            if same(choices.short(), string.as_bytes()) {
                return true;
            }
        }
        false
    }

    fn accepts_any(&self, mut schemas: Code<'_>, value: usize) -> bool {
        while !schemas.is_empty() {
            if self.accepts(Code(schemas.short()), value) {
                return true;
            }
        }
        false
    }

    /// Whether a number has no fraction: `1`, `1.0`, `1e3`.
    fn is_whole(&self, number: usize) -> bool {
        let raw = self.raw(number);
        let digits = raw.strip_prefix(b"-").unwrap_or(raw);
        let number = || std::str::from_utf8(raw).ok().and_then(|raw| raw.parse::<f64>().ok());
        digits.iter().all(u8::is_ascii_digit) || number().is_some_and(|number| number.fract() == 0.0)
    }

    /// The value as it is written.
    fn raw(&self, index: usize) -> &[u8] {
        let Entry { start, end, .. } = self.entries[index];
        &self.json[start as usize..end as usize]
    }
}

struct Member<'a> {
    required: bool,
    schema: Code<'a>,
}

impl<'a> Member<'a> {
    /// The first of `members` with that key. `members` then starts after it.
    fn find(members: &mut Code<'a>, key: &[u8]) -> Option<Self> {
        while !members.is_empty() {
            let required = members.byte() != 0;
            let found = same(members.short(), key);
            let schema = Code(members.short());
            if found {
                return Some(Self { required, schema });
            }
        }
        None
    }
}
