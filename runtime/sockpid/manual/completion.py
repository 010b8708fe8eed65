"""Completion for bash, zsh and fish: commands, options, and the values that an option can have."""

from __future__ import annotations

from typing import Dict, List, Sequence

from .commands import Command, Option

FILES = ("FILE", "DIR", "[DIR]", "PATH", "KEYRING")
"""Values that are names of files."""


def scripts(program: str, commands: Sequence[Command]) -> Dict[str, str]:
    """A script by the name of its shell."""
    return {"bash": _bash(program, commands), "zsh": _zsh(program, commands), "fish": _fish(program, commands)}


def _flags(command: Command) -> str:
    return " ".join(flag for option in command.options for flag in option.flags)


def _bash(program: str, commands: Sequence[Command]) -> str:
    names = " ".join(command.name for command in commands if command.name)
    cases: List[str] = []
    for command in commands:
        cases.append(f"    {command.name or '*'}) words='{_flags(command)}{'' if command.name else ' ' + names}' ;;")
    values: List[str] = []
    for option in [option for command in commands for option in command.options if option.flags]:
        words = f'-W "{" ".join(option.choices)}"' if option.choices else "-f" if option.value in FILES else None
        if words:
            flags = "|".join(option.flags)
            values.append(f'    {flags}) COMPREPLY=($(compgen {words} -- "$word")); return ;;')
    lines = [
        f"# bash completion for {program}",
        f"_{program}() {{",
        '    local word="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" command= words= w',
        '    for w in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        f'        case " {names} " in *" $w "*) command=$w; break ;; esac',
        "    done",
        '    case "$previous" in',
        *sorted(set(values)),
        "    esac",
        '    case "$command" in',
        *cases[1:],
        *cases[:1],
        "    esac",
        '    COMPREPLY=($(compgen -W "$words" -- "$word"))',
        "}",
        f"complete -F _{program} {program}",
    ]
    return "\n".join(lines) + "\n"


def _zsh(program: str, commands: Sequence[Command]) -> str:
    lines = [f"#compdef {program}", "", f"_{program}() {{", "  local line state", "  _arguments -C \\"]
    lines += [f"    {spec} \\" for option in commands[0].options for spec in _zsh_specs(option)]
    lines += ["    '1: :->command' '*:: :->arguments'", "  case $state in", "    command) _values command \\"]
    lines += [f"      {_quote(f'{c.name}[{_zsh_text(c.summary)}]')} \\" for c in commands if c.name]
    lines += ["      ;;", "    arguments) case $line[1] in"]
    for command in commands[1:]:
        specs = " ".join(spec for option in command.options for spec in _zsh_specs(option))
        lines.append(f"      {command.name}) _arguments {specs} ;;")
    return "\n".join([*lines, "    esac ;;", "  esac", "}", "", f'_{program} "$@"']) + "\n"


def _zsh_specs(option: Option) -> List[str]:
    action = f"({' '.join(option.choices)})" if option.choices else "_files" if option.value in FILES else ""
    value = "" if option.value is None else f":{_zsh_text(option.value)}:{action}"
    if not option.flags:
        return [_quote(f"::{_zsh_text(option.value or '')}:{action}")]
    return [_quote(f"{flag}[{_zsh_text(option.help)}]{value}") for flag in option.flags]


def _zsh_text(text: str) -> str:
    for special in "\\[]:":
        text = text.replace(special, "\\" + special)
    return text


def _fish(program: str, commands: Sequence[Command]) -> str:
    lines = [f"# fish completion for {program}", f"complete -c {program} -f"]
    for command in commands:
        at = f"__fish_seen_subcommand_from {command.name}" if command.name else "__fish_use_subcommand"
        if command.name:
            about = _quote(_fish_text(command.summary))
            lines.append(f"complete -c {program} -n __fish_use_subcommand -a {command.name} -d {about}")
        for option in command.options:
            if not option.flags:
                continue
            names = " ".join(f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in option.flags)
            value = "" if option.value is None else " -x" if option.value not in FILES else " -r -F"
            if option.choices:
                value += f" -a {_quote(' '.join(option.choices))}"
            lines.append(f"complete -c {program} -n {_quote(at)} {names}{value} -d {_quote(_fish_text(option.help))}")
    return "\n".join(lines) + "\n"


def _fish_text(text: str) -> str:
    return text.replace("\\", "\\\\")


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
