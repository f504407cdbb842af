"""A program: parses the Rego on its input and says nothing; how it ends is the answer.

A module can take the engine's parser for ever, or end the process that it runs in.
"""

from __future__ import annotations

import contextlib
import sys

import regorus


def main() -> None:
    """Parse as `policy_ast` does. What the parser merely refuses is told there."""
    engine = regorus.Engine()
    with contextlib.suppress(BaseException):  # a Rust panic is no Exception
        engine.add_policy("a.rego", sys.stdin.buffer.read().decode())
        engine.get_ast_as_json()


if __name__ == "__main__":
    main()
