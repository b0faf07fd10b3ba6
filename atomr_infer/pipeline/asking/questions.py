"""What a pipeline asks for itself about a request: a gate, a judge, a planner.

Pure.
"""

from __future__ import annotations

import re

from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling


def question(
    batch: ExecuteBatch,
    model: str,
    prompt: str,
    *,
    max_tokens: int,
    timeout_s: float | None = None,
) -> ExecuteBatch:
    """Return a question of its own, asked for whom a request is.

    Args:
        batch: the request, whose client, priority and time it has.
        model: the public name of who is asked.
        prompt: all that is said.
        max_tokens: the longest reply.
        timeout_s: how long that may take; None: as long as the request.
    """
    bounds = [b for b in (batch.timeout_s, timeout_s) if b is not None]
    return ExecuteBatch(
        request_id=batch.request_id,
        model=model,
        messages=(Message(Role.USER, prompt),),
        sampling=Sampling(temperature=0.0, max_tokens=max_tokens),
        priority=batch.priority,
        timeout_s=min(bounds, default=None),
        asker=batch.asker,
        client_headers=batch.client_headers,
    )


def filled(prompt: str, **values: str) -> str:
    """Return a prompt with its values put in; a value may hold any text.

    >>> filled("do {plan}: {it}", plan="{it}", it="now")
    'do {it}: now'
    """
    # In one pass: a value that holds another's name is no place for it.
    names = "|".join(values)
    return re.sub(rf"\{{({names})\}}", lambda found: values[found[1]], prompt)
