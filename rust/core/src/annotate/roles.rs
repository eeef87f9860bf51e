//! Roles of messages: which a template knows, and whether it writes what their messages say.

use crate::json::node::Node;
use crate::template::ChatTemplate;
use crate::{Error, Result};

const SENTINEL: &str = "kdfast-sentinel-content";

/// A shorter content may stand in the text by chance.
const TELLING: usize = 20;

/// `OpenAI`'s newer name for the role that other houses call system.
pub const DEVELOPER: &str = "developer";

/// Whether a template knows the role `developer` by name. One that writes any role as it comes does not: its model has
/// not seen that role.
pub fn knows_developer(template: &ChatTemplate) -> bool {
    [Some(template.source()), template.tool_use()].iter().flatten().any(|source| source.contains(DEVELOPER))
}

/// Refuses a message whose content the template leaves out, as some do where they do not know the role.
///
/// `text` is the rendered conversation; `render` renders it with another message in the place of this one. What an
/// assistant said is not looked at: many templates leave out its thinking of earlier turns, in use as in training.
pub fn check_heard(
    message: &Node<'_>,
    role: &str,
    text: &str,
    index: usize,
    render: impl Fn(&str) -> Result<String>,
) -> Result<()> {
    if matches!(role, "user" | "assistant") {
        return Ok(());
    }
    let Some(content) = message.get("content") else { return Ok(()) };
    let said = content.text();
    if let Some(said) = said.as_deref().map(str::trim)
        && (said.is_empty() || (said.len() >= TELLING && text.contains(said)))
    {
        return Ok(());
    }
    if said.is_none() && content.items().is_empty() {
        return Ok(());
    }
    let mut other = message.clone();
    if let Some(place) = other.get_mut("content") {
        *place = match said {
            Some(_) => Node::string(SENTINEL),
            None => Node::Array(vec![Node::string(SENTINEL)]),
        };
    }
    if render(&other.json()).is_ok_and(|changed| changed == text) {
        return Err(Error::data(format!(
            "messages[{index}]: the chat template leaves out what a message of role {role:?} says: write its role as \
             system, user, assistant or tool, whichever it is, or choose another data.template"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "{% for m in messages %}{% if m.role in ['user', 'system'] %}{{ m.role }}: {{ m.content | tojson }}\n{% endif %}{% endfor %}";

    fn check(role: &str, content: &str) -> Result<()> {
        let template = ChatTemplate::new(KNOWN, None, &[]).unwrap();
        let message = format!(r#"{{"role": "{role}", "content": {content}}}"#);
        let render = |message: &str| template.render(&format!("[{message}]"), None, true);
        let text = render(&message).unwrap();
        check_heard(&Node::parse(&message).unwrap(), role, &text, 2, render)
    }

    #[test]
    fn what_the_template_leaves_out_is_refused() {
        for content in
            [r#""short""#, r#""long enough to be found in a text""#, r#"[{"type": "text", "text": "x"}]"#]
        {
            assert!(check("critic", content).unwrap_err().message.contains("messages[2]"), "{content}");
            assert!(check("system", content).is_ok(), "{content}");
        }
        assert!(check("system", r#""a quote \" that is escaped""#).is_ok());
        assert!(check("critic", r#"" ""#).is_ok(), "it says nothing");
        assert!(check("critic", "null").is_ok());
        assert!(check("assistant", r#""earlier thinking may go""#).is_ok());
    }

    #[test]
    fn a_template_that_writes_any_role_does_not_know_developer() {
        let knows = |source| knows_developer(&ChatTemplate::new(source, None, &[]).unwrap());
        assert!(!knows("{{ messages[0].role }}"));
        assert!(knows("{% if messages[0].role == 'developer' %}{% endif %}"));
    }
}
