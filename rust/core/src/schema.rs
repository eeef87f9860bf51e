//! Tool definitions compiled to JSON Schema validators.

use crate::error::Issue;
use crate::{Result, tool_call::ToolCall};

/// The compiled argument schemas of a set of tools.
#[derive(Debug)]
pub struct ToolSchema {}

impl ToolSchema {
    /// Compiles `tools`: JSON array of `{name, description, parameters}` or of OpenAI's `{type: function, function: {...}}`.
    pub fn new(_tools: &str) -> Result<Self> {
        todo!()
    }

    /// Everything that is wrong with `call`; empty when it is valid.
    pub fn issues(&self, _call: &ToolCall) -> Vec<Issue> {
        todo!()
    }

    pub fn is_valid(&self, _call: &ToolCall) -> bool {
        todo!()
    }

    /// True when every `required` argument of the called tool is present (top level). False for an unknown tool.
    pub fn required_present(&self, _call: &ToolCall) -> bool {
        todo!()
    }

    /// The compiled schema of `tools`, from a cache keyed by the text's hash.
    pub fn cached(_tools: &str) -> Result<std::sync::Arc<Self>> {
        todo!()
    }
}
