# Command lines of --name=value flags, by tyro: dataclasses made of groups of flags.
from __future__ import annotations

import ast
import contextlib
import difflib
import inspect
import io
import logging
import re
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, TypeVar, get_args, get_origin, get_type_hints

log = logging.getLogger(__name__)

Flags = TypeVar("Flags")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@cache
def read_field_docs(kind: type) -> dict[str, str]:
    """The docstrings below the fields of a dataclass, by field."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        except (OSError, TypeError):  # made by make_dataclass
            continue
        for at, text in pairwise(body):
            if isinstance(at, ast.AnnAssign) and isinstance(text, ast.Expr):
                docs[at.target.id] = " ".join(text.value.value.split())
    return docs


@cache
def describe_fields(kind: type) -> None:
    """Give the fields of a dataclass, and of those in it, their docstrings as help, without line
    breaks; a docstring that names the default replaces None."""
    import tyro

    types, docs = get_type_hints(kind, include_extras=True), read_field_docs(kind)
    for f in fields(kind):
        inner = types[f.name]
        group = get_args(inner)[0] if get_origin(inner) is Annotated else inner
        if is_dataclass(group):
            describe_fields(group)
        extras = getattr(inner, "__metadata__", ())
        if f.name not in docs or any(getattr(extra, "help", None) for extra in extras):
            continue
        named = f.default is None and "default:" in docs[f.name].lower()
        hint = tyro.conf.arg(help=docs[f.name], help_behavior_hint="" if named else None)
        kind.__annotations__[f.name] = Annotated[inner, hint]


def parse_command(kind: type[Flags], program: str, **options: object) -> Flags:
    """`tyro.cli` as all commands call it: with underscores, and errors of one line."""
    import tyro

    describe_fields(kind)
    with shorten_errors():
        return tyro.cli(kind, prog=program, use_underscores=True, **options)


@contextlib.contextmanager
def shorten_errors() -> Iterator[None]:
    """Within this block tyro's boxes on stderr are one line each, error: ...; it still exits with
    code 2."""
    written = io.StringIO()
    try:
        with contextlib.redirect_stderr(written):
            yield
    except SystemExit as stop:
        if stop.code == 2 and written.getvalue():
            written = io.StringIO(f"error: {read_box(written.getvalue())}\n")
        raise
    finally:
        sys.stderr.write(written.getvalue())


def read_box(text: str) -> str:
    """What a box of tyro's says before its first rule, and what was probably meant."""
    parts: list[list[str]] = [[]]
    for line in COLOURS.sub("", text).splitlines():
        inner = line.strip("│ ")
        if not inner.strip("─-"):
            parts.append([])
        elif not line.startswith(("╭", "╰")):
            parts[-1].append(inner)
    if "╭" not in text:  # in ASCII the title is a part of its own
        parts = parts[1:] or parts
    sentence = " ".join(parts[0]) or " ".join(text.split())
    sentence = re.sub(r"(?<=\()'None', |, 'None'(?=[,)])", "", sentence)  # of optional flags
    for part in parts[1:]:
        if part[:1] == ["Perhaps you meant:"] and len(part) > 1:
            return f"{sentence.rstrip('.')}; did you mean {part[1].split()[0]}?"
    return f"{sentence.rstrip('.')}; see --help"


def parse_flags(
    kind: type[Flags],
    arguments: list[str],
    program: str,
    about: str,
    *,
    ignored: tuple[type, ...] = (),
    aliases: Mapping[str, str] | None = None,
    where: str = "here",
) -> Flags:
    """An instance of `kind`, whose fields are groups of flags, from the command line.

    Flags of the groups `ignored` are checked, and a line of the log says that they have no effect
    `where`. `aliases` are other names of flags. Raises ValueError for an unknown flag, with what
    was probably meant; tyro exits with code 2 for a wrong value.
    """
    aliases = aliases or {}
    own = {f.name for group in fields(kind) for f in fields(group.default_factory)}
    own |= {alias for alias, name in aliases.items() if name in own}
    foreign = {f.name: group for group in reversed(ignored) for f in fields(group)}
    given = split_arguments(arguments, {**foreign, **dict.fromkeys((*own, *aliases))})
    given = [(aliases.get(name, name), values) for name, values in given]
    idle = [(name, values) for name, values in given if name not in own and name != "help"]
    for name, values in idle:
        run_tyro(foreign[name], [(name, values)], program, about)
    if idle:
        log.info("without effect %s: %s", where, ", ".join(f"--{name}" for name, _ in idle))
    used = [(name, values) for name, values in given if (name, values) not in idle]
    return run_tyro(kind, used, program, about)


def split_arguments(arguments: list[str], names: Collection[str]) -> list[tuple[str, list[str]]]:
    """Flags and their values, in order: --name=value, --name value value, and --name alone for a
    boolean. Raises ValueError for a flag that is none of `names`."""
    given: list[tuple[str, list[str]]] = []
    for argument in arguments:
        text, equals, value = argument.partition("=")
        if text in ("-h", "--help"):
            given.append(("help", []))
        elif text.startswith("--"):
            name = text[2:].replace("-", "_")
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                hint = f"; did you mean --{near[0]}?" if near else "; see --help"
                raise ValueError(f"there is no flag {text}{hint}")
            given.append((name, [value] if equals else []))
        elif not given:
            raise ValueError(f"{argument!r} belongs to no flag; see --help")
        else:
            given[-1][1].append(argument)
    return given


def run_tyro(
    kind: type[Flags], given: list[tuple[str, list[str]]], program: str, about: str
) -> Flags:
    """The dataclass (of flags, or of groups of flags) from flags and values."""
    import tyro

    groups = all(is_dataclass(f.default_factory) for f in fields(kind))
    leaves = [f for g in fields(kind) for f in fields(g.default_factory)] if groups else []
    booleans = {f.name for f in leaves or fields(kind) if is_boolean(f.type)}
    words: list[str] = []
    for name, values in given:
        if name in booleans:
            values = [spell_boolean(value) for value in values] or ["True"]
        words += [f"--{name}", *values]
    return parse_command(
        kind,
        program,
        args=words,
        description=inspect.cleandoc(about),
        config=(tyro.conf.FlagConversionOff, tyro.conf.OmitArgPrefixes),
    )


def is_boolean(kind: object) -> bool:
    """Whether a field's type, as text or as it is, is bool, or bool or None."""
    if isinstance(kind, str):
        return kind.startswith("bool")
    return kind is bool or any(is_boolean(part) for part in get_args(kind))


def spell_boolean(text: str) -> str:
    """True or False for what people write (1, yes, on; 0, no, off); other text as it is."""
    lowered = text.lower()
    if lowered in ("1", "true", "yes", "on"):
        return "True"
    return "False" if lowered in ("0", "false", "no", "off") else text
