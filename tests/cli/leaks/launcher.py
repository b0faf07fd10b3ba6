"""``atomr-infer`` with everything switched on that shows what is inside.

Every telemetry event goes to standard error, and so does all that ``sys`` tells
of every process, when the model ``dump`` is asked.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from atomr import telemetry
from atomr_infer.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Mapping


def show(
    event: telemetry.Event,
    measurements: Mapping[str, float],
    metadata: Mapping[str, object],
) -> None:
    """Write an event, its metadata in both text forms."""
    texts = [f"{name}={value!r} {value!s}" for name, value in metadata.items()]
    print("EVENT", event, dict(measurements), *texts, file=sys.stderr)


if __name__ == "__main__":
    telemetry.attach("leak-test", (), show)
    main()
