//! One parsed record.

/// A teacher's top-k log-probabilities as they are in a record: one list for each response token.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopK {
    pub ids: Vec<Vec<u32>>,
    pub logprobs: Vec<Vec<f32>>,
}

/// One parsed and checked line of a dataset. JSON-valued fields are kept as their own (validated) text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// 1-based line in the file.
    pub line: u64,
    pub prompt: Option<String>,
    /// JSON array of messages.
    pub messages: Option<String>,
    /// JSON array of tool definitions.
    pub tools: Option<String>,
    pub teacher_text: Option<String>,
    /// JSON object: an assistant message.
    pub teacher_message: Option<String>,
    pub truth_text: Option<String>,
    /// JSON object: an assistant message.
    pub truth_message: Option<String>,
    pub tool_should_be_used: Option<bool>,
    pub teacher_prefix_ids: Option<Vec<u32>>,
    pub required_fields_present: Option<bool>,
    pub teacher_attention_mask: Option<Vec<u8>>,
    /// JSON object.
    pub validated_arguments: Option<String>,
    pub teacher_topk: Option<TopK>,
    /// `stop`, `length`, `tool_calls`, ...: an answer cut by `length` has no turn end to learn.
    pub finish_reason: Option<String>,
    /// JSON object: the record's `metadata` and every key that kdfast does not know, untouched.
    pub metadata: String,
}
