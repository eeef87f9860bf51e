//! Chat templates, rendered as `transformers.apply_chat_template` renders them.

use crate::Result;

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {}

impl ChatTemplate {
    /// Compiles `source` (Jinja). `bos_token` and `eos_token` are what the template sees under these names.
    pub fn new(_source: &str, _bos_token: &str, _eos_token: &str) -> Result<Self> {
        todo!()
    }

    /// Renders `messages` (JSON array) with `tools` (JSON array) as text.
    pub fn render(
        &self,
        _messages: &str,
        _tools: Option<&str>,
        _add_generation_prompt: bool,
    ) -> Result<String> {
        todo!()
    }

    /// The Jinja text.
    pub fn source(&self) -> &str {
        todo!()
    }
}
