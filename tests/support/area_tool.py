"""A tool, a call of it, and where in the call its JSON ends."""

from __future__ import annotations

import json

TOOLS = json.dumps(
    [
        {
            "name": "area",
            "parameters": {
                "type": "object",
                "properties": {"side": {"type": "integer"}, "unit": {"type": "string"}},
                "required": ["side"],
            },
        }
    ]
)
CALL = '<tool_call>{"name":"area","arguments":{"side":3}}</tool_call>'
TO_BRACE = CALL.index("}}") + 2  # one byte is one token
