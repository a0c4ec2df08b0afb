"""Composes docs/operators.md from the schemas in csrc/<room>/*_op.cpp. generated_files.py writes it."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

import sources

HEAD = """# Operators

The schema of every compiled operator, as `torch.ops.retina_ops.<name>`, by the room under `csrc/` that defines it. The
functions of `retina_ops` check their options, fill in defaults and call these. `make format` generates this page from
`csrc/<room>/<room>_op.cpp`.
"""
FRAGMENT = re.compile(
    r"(?P<comment>(?:^//[^\n]*\n)*)^STABLE_TORCH_LIBRARY_FRAGMENT\(retina_ops, m\) \{\n(?P<body>.*?)^\}",
    re.MULTILINE | re.DOTALL,
)
DEFINITION = re.compile(r'(?P<comment>(?:^ *//[^\n]*\n)*)^ *m\.def\(\s*(?P<text>(?:"[^"]*"\s*)+)\);', re.MULTILINE)


@dataclass(frozen=True)
class Operator:
    """One operator: its schema without the namespace, and the comment above it in the source."""

    schema: str
    comment: str

    @property
    def name(self) -> str:
        return self.schema.partition("(")[0]


@dataclass(frozen=True)
class Fragment:
    """The operators that one file defines, and the comment above them, which is about all of them."""

    room: str
    comment: str
    operators: tuple[Operator, ...]


def fragments() -> list[Fragment]:
    """The library fragments of all rooms, in the order of their files."""
    return [
        Fragment(
            name.partition("/")[0],
            _text(block["comment"]),
            tuple(
                Operator("".join(re.findall(r'"([^"]*)"', found["text"])), _text(found["comment"]))
                for found in DEFINITION.finditer(block["body"])
            ),
        )
        for name in sources.cpu_operators()
        for block in FRAGMENT.finditer((sources.CSRC / name).read_text())
    ]


def page() -> str:
    parts = [HEAD]
    for fragment in fragments():
        parts.append(f"## {fragment.room}\n\n{fragment.comment}\n")
        for operator in fragment.operators:
            comment = f"{operator.comment}\n\n" if operator.comment else ""
            parts.append(f"### {operator.name}\n\n{comment}```\n{_wrapped(operator.schema)}\n```\n")
    return "\n".join(parts)


def _text(comment: str) -> str:
    """The sentences of a comment, in lines of at most 120 characters."""
    return textwrap.fill(" ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines()), 120)


def _wrapped(schema: str) -> str:
    """The schema in lines of at most 100 characters, broken between arguments."""
    head, _, result = schema.rpartition(" -> ")
    words = head.replace(" ", "\0").replace(",\0", ", ") + " ->\0" + result.replace(" ", "\0")
    return textwrap.fill(words, 100, subsequent_indent="    ", break_long_words=False).replace("\0", " ")
