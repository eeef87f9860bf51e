//! The token store's columns: their schema, and how rows are written to them and read.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int8Array, Int32Array, Int32Builder,
    Int64Array, ListArray, ListBuilder, RecordBatch, StringArray, UInt8Builder,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, UInt8Type};

use crate::Result;
use crate::annotate::{Row, Span};
use crate::ipc::{self, CHECKSUM_COLUMN};

/// The columns that are lists of int32. Spans are stored flat: start, end, start, end, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    Ids,
    Supervised,
    ToolCall,
    ToolBody,
    ToolName,
    ToolArgs,
    ArgKeys,
    ArgValues,
    TurnEnd,
    DropGroups,
    TeacherPrefixIds,
}

const LISTS: [(List, &str); 11] = [
    (List::Ids, "ids"),
    (List::Supervised, "supervised"),
    (List::ToolCall, "tool_call"),
    (List::ToolBody, "tool_body"),
    (List::ToolName, "tool_name"),
    (List::ToolArgs, "tool_args"),
    (List::ArgKeys, "arg_keys"),
    (List::ArgValues, "arg_values"),
    (List::TurnEnd, "turn_end"),
    (List::DropGroups, "drop_groups"),
    (List::TeacherPrefixIds, "teacher_prefix_ids"),
];

/// The span columns with their names.
pub const SPANS: &[(List, &str)] = LISTS.split_at(1).1.split_at(8).0;

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, false)))
}

/// The schema with `metadata` as its header.
pub fn schema(metadata: HashMap<String, String>) -> SchemaRef {
    let mut fields: Vec<Field> =
        LISTS.iter().map(|(_, name)| Field::new(*name, list_of(DataType::Int32), false)).collect();
    let scalars = [
        ("response_start", DataType::Int32, false),
        ("response_length", DataType::Int32, false),
        ("tool_should_be_used", DataType::Boolean, false),
        ("required_fields_present", DataType::Boolean, false),
        ("teacher_attention_mask", list_of(DataType::UInt8), true),
        ("teacher_length", DataType::Int32, false),
        ("validated_arguments", DataType::Utf8, true),
        ("source", DataType::Int8, false),
        ("line", DataType::Int64, false),
        ("finish_reason", DataType::Utf8, true),
        ("tools", DataType::Utf8, true),
        ("metadata", DataType::Utf8, false),
        ("prompt_lossy", DataType::Boolean, false),
        ("call_valid", DataType::Boolean, false),
        (CHECKSUM_COLUMN, DataType::UInt64, false),
    ];
    fields.extend(scalars.map(|(name, kind, nullable)| Field::new(name, kind, nullable)));
    Arc::new(Schema::new(fields).with_metadata(metadata))
}

fn flat(spans: &[Span]) -> Vec<i32> {
    spans.iter().flat_map(|span| [span.start as i32, span.end as i32]).collect()
}

fn list_values(row: &Row, list: List) -> Vec<i32> {
    match list {
        List::Ids => row.ids.iter().map(|&id| id as i32).collect(),
        List::Supervised => flat(&row.supervised),
        List::ToolCall => flat(&row.spans.tool_call),
        List::ToolBody => flat(&row.spans.tool_body),
        List::ToolName => flat(&row.spans.tool_name),
        List::ToolArgs => flat(&row.spans.tool_args),
        List::ArgKeys => flat(&row.spans.arg_keys),
        List::ArgValues => flat(&row.spans.arg_values),
        List::TurnEnd => flat(&row.spans.turn_end),
        List::DropGroups => flat(&row.drop_groups),
        List::TeacherPrefixIds => row.teacher_prefix_ids.iter().map(|&id| id as i32).collect(),
    }
}

fn int_lists(rows: &[Row], list: List) -> ArrayRef {
    let mut builder =
        ListBuilder::new(Int32Builder::new()).with_field(Field::new("item", DataType::Int32, false));
    for row in rows {
        builder.values().append_slice(&list_values(row, list));
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn masks(rows: &[Row]) -> ArrayRef {
    let mut builder =
        ListBuilder::new(UInt8Builder::new()).with_field(Field::new("item", DataType::UInt8, false));
    for row in rows {
        if let Some(mask) = &row.teacher_attention_mask {
            builder.values().append_slice(mask);
        }
        builder.append(row.teacher_attention_mask.is_some());
    }
    Arc::new(builder.finish())
}

/// `rows` as a record batch, checksums included.
pub fn batch(schema: &SchemaRef, rows: &[Row]) -> Result<RecordBatch> {
    fn ints(rows: &[Row], of: impl Fn(&Row) -> u32) -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| of(row) as i32)))
    }
    fn bools(rows: &[Row], of: impl Fn(&Row) -> bool) -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<BooleanArray>())
    }
    fn texts(rows: &[Row], of: impl Fn(&Row) -> Option<&str>) -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    }
    let mut columns: Vec<ArrayRef> = LISTS.iter().map(|(list, _)| int_lists(rows, *list)).collect();
    columns.extend([
        ints(rows, |row| row.response.start),
        ints(rows, |row| row.response.len() as u32),
        bools(rows, |row| row.tool_should_be_used),
        bools(rows, |row| row.required_fields_present),
        masks(rows),
        ints(rows, |row| row.teacher_length),
        texts(rows, |row| row.validated_arguments.as_deref()),
        Arc::new(Int8Array::from_iter_values(rows.iter().map(|row| row.source as i8))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.line as i64))),
        texts(rows, |row| row.finish_reason.as_deref()),
        texts(rows, |row| row.tools.as_deref()),
        texts(rows, |row| Some(&row.metadata)),
        bools(rows, |row| row.prompt_lossy),
        bools(rows, |row| row.call_valid),
    ]);
    ipc::with_checksums(schema, columns)
}

/// A list column: offsets and values, both in the mapped file.
#[derive(Debug)]
struct Lists<T: ArrowPrimitiveType>(ListArray, arrow::array::PrimitiveArray<T>);

impl<T: ArrowPrimitiveType> Lists<T> {
    fn new(column: &ArrayRef) -> Self {
        let list = column.as_list::<i32>().clone();
        let values = list.values().as_primitive::<T>().clone();
        Self(list, values)
    }

    fn get(&self, index: usize) -> &[T::Native] {
        let offsets = self.0.value_offsets();
        &self.1.values()[offsets[index] as usize..offsets[index + 1] as usize]
    }
}

/// A record batch's columns, typed.
#[derive(Debug)]
pub struct Columns {
    lists: Vec<Lists<Int32Type>>,
    masks: Lists<UInt8Type>,
    batch: RecordBatch,
}

impl Columns {
    /// `batch` must have the schema of [`schema`]; what its rows say is not checked.
    pub fn new(batch: RecordBatch) -> Self {
        let lists = batch.columns()[..LISTS.len()].iter().map(Lists::new).collect();
        let masks = Lists::new(&batch.columns()[LISTS.len() + 4]);
        Self { lists, masks, batch }
    }

    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    pub fn list(&self, list: List, index: usize) -> &[i32] {
        self.lists[list as usize].get(index)
    }

    pub fn mask(&self, index: usize) -> Option<&[u8]> {
        self.masks.0.is_valid(index).then(|| self.masks.get(index))
    }
}
