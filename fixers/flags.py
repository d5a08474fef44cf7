# The options of all registered fixers as the flags of a command line, each under that command's own
# names.
from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import tyro

from fixers.fixer import FixerOptions
from fixers.registry import FIXERS, NAMES
from runtime.arguments import naming_flags
from runtime.flags import read_field_docs

FixerName = Literal[NAMES]


def describe_fixers(names: Collection[str] = FIXERS) -> str:
    """Each fixer with the first line of its options' docstring: the help of --fixer."""
    lines = {name: inspect.cleandoc(FIXERS[name][0].__doc__).splitlines()[0] for name in names}
    return "; ".join(f"{name}: {line.rstrip('.')}" for name, line in lines.items()) + "."


@dataclass(frozen=True)
class Option:
    """An option of one or several fixers."""

    name: str
    type: object
    default: object
    help: str
    fixers: tuple[str, ...]


@cache
def list_options() -> dict[str, Option]:
    """The union of the registered fixers' options, by name. Raises TypeError, in one sentence for
    who wrote the fixer, for an option without a docstring or of another type elsewhere."""
    options: dict[str, Option] = {}
    helps: dict[str, dict[str, list[str]]] = {}
    for fixer, (kind, _) in FIXERS.items():
        types, docs = get_type_hints(kind), read_field_docs(kind)
        for f in fields(kind):
            if not f.metadata.get("flag", True):
                continue
            known = options.get(f.name)
            if f.name not in docs:
                raise TypeError(
                    f"the option {f.name} of the fixer {fixer} needs a docstring below it "
                    f"({kind.__name__}): it is the help of its flag"
                )
            if known is not None and known.type != types[f.name]:
                raise TypeError(
                    f"the option {f.name} of the fixer {fixer} must have the type that it has in "
                    f"{known.fixers[0]} ({known.type}), or another name"
                )
            helps.setdefault(f.name, {}).setdefault(docs[f.name], []).append(fixer)
            owners = (*(known.fixers if known else ()), fixer)
            texts = (f"{text} [{', '.join(names)}]" for text, names in helps[f.name].items())
            options[f.name] = Option(f.name, types[f.name], f.default, " ".join(texts), owners)
    return options


def describe_values(kind: object) -> str:
    """The values of a type, as help texts show them: {a,b}, INT, PATH, ..."""
    if kind == list[int]:
        return "INT [INT ...]"
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    choices = [part for part in get_args(kind) if part is not NoneType]
    if choices:
        return describe_values(choices[0])
    return "{True,False}" if kind is bool else kind.__name__.upper()


@dataclass(frozen=True)
class OptionFlags:
    """How one command line spells the fixers' options.

    names: flags of options that have another name there. prefix: of the flags of all others.
    opposites: flags that say no to an option that is yes, no or the fixer's own choice. defaults:
    of options that the command gives another default; shown: of those that it works out, in words.
    switches: booleans are flags without a value.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    opposites: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    switches: bool = False

    def flag(self, option: str) -> str:
        """The name of an option's flag, without dashes."""
        return self.names.get(option, f"{self.prefix}{option}")

    def make_group(
        self, name: str, doc: str, options: Collection[str], bases: tuple[type, ...] = ()
    ) -> type:
        """A frozen dataclass of the flags of some options, none of them given by default."""
        every, group = list_options(), []
        for option in (every[name] for name in every if name in options):
            flag = self.flag(option.name)
            aliases = [f"--{alias}" for alias in self.aliases.get(option.name, ())]
            default = self.defaults.get(option.name, option.default)
            default = self.shown.get(option.name, default)
            shown = default not in (None, MISSING) and not (self.switches and default is False)
            is_switch = self.switches and bool in (option.type, *get_args(option.type))
            opposite = self.opposites.get(option.name)
            hint = tyro.conf.arg(
                help=option.help,
                help_behavior_hint=f"(default: {default})" if shown else "",
                metavar=None if is_switch else describe_values(option.type),
                aliases=aliases or None,
            )
            if is_switch and opposite is not None:
                single = tyro.conf.FlagCreatePairsOff
                no = tyro.conf.arg(
                    help=f"The opposite of --{flag}.",
                    help_behavior_hint="",
                    aliases=None if opposite == f"no_{flag}" else [f"--no_{flag}"],
                )
                group.append((flag, Annotated[bool, single, hint], False))
                group.append((opposite, Annotated[bool, single, no], False))
                continue
            if is_switch:
                group.append((flag, Annotated[bool, hint], option.default or False))
                continue
            group.append((flag, Annotated[option.type | None, hint], None))
        members = [(flag, kind, field(default=default)) for flag, kind, default in group]
        kind = make_dataclass(name, members, bases=bases, frozen=True)
        kind.__doc__ = doc
        return kind

    def choose_options(self, fixer: str, *groups: object) -> FixerOptions:
        """The options of a fixer, from groups of flags. Raises ValueError for a flag that belongs
        to other fixers only, for two that contradict each other, and for wrong values."""
        flags = {name: value for group in groups for name, value in vars(group).items()}
        kind = FIXERS[fixer][0]
        own = {f.name for f in fields(kind)}
        values = {name: value for name, value in self.defaults.items() if name in own}
        for option in list_options().values():
            flag, opposite = self.flag(option.name), self.opposites.get(option.name)
            value, default = flags.get(flag), option.default or False
            if self.switches and (value is False or value is True) and value == default:
                value = None
            if opposite is not None and flags.get(opposite):
                if value:
                    raise ValueError(f"--{flag} and --{opposite}: give one of them")
                flag, value = opposite, False
            if value is None:
                continue
            if option.name not in own:
                others = ", ".join(option.fixers)
                raise ValueError(
                    f"--{flag} is an option of {others}; --fixer {fixer} does not have it"
                )
            values[option.name] = value
        with self.naming():
            return kind(**values)

    def check_names(self, command: str, *own: type | str) -> None:
        """Raises TypeError, for who wrote a fixer, if the flag of an option is one of the command's
        own: a field of its groups of flags, or a name."""
        taken = {name for name in own if isinstance(name, str)}
        taken |= {f.name for group in own if not isinstance(group, str) for f in fields(group)}
        for option in list_options().values():
            if self.flag(option.name) in taken:
                raise TypeError(
                    f"the option {option.name} of the fixer {option.fixers[0]} must have another "
                    f"name: --{self.flag(option.name)} is a flag of {command}"
                )

    def naming(self, **others: str) -> AbstractContextManager[None]:
        """Within this block errors about an option name its flag, or that of `others`."""
        return naming_flags(**{o: f"--{self.flag(o)}" for o in list_options()} | others)
