"""JSON Schemas that llguidance keeps answers to: how they are read, and which are slow.

ONNX Runtime's answers and mistral.rs's are kept to schemas by the same library.  What
it works out before the first token takes a moment for most schemas, and without end
for a few.

Pure.
"""

from __future__ import annotations

import re

ANY_OBJECT = '{"type": "object"}'

BLANKS = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}
"""On one line, as most JSON is that a model was shown in answers: one that likes blanks
would write them until its answer is full, and a small one at odd places."""

_SURE_BYTES = 8 * 1024
"""So few can be worked out in a moment, unless a word of these is among them: what is
the case for two rules at once is looked for among all combinations of their parts."""

_UNSURE = re.compile(
    r'\\|"(?:allOf|oneOf|not|if|dependent\w*|pattern\w*|propertyNames|format'
    r'|contains|unevaluated\w*|\$dynamicRef|multipleOf)"'
)


def may_take_long(schema: str) -> bool:
    """Whether a schema may take more than a moment to be worked out.

    >>> may_take_long('{"type": "string"}'), may_take_long('{"pattern": "^a+$"}')
    (False, True)
    """
    return len(schema) > _SURE_BYTES or _UNSURE.search(schema) is not None
