"""Commands on the pages exist: those of zspl parse, make has the targets, modules are there."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from zspl.cli._parsers import parser

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
OURS = {"zspl", "make", "python"}
TOOLS = {"dvc", "mlflow", "prefect", "torchrun", "mkdocs"}
SHELL = {
    ".",
    "cat",
    "cd",
    "cp",
    "curl",
    "do",
    "done",
    "export",
    "for",
    "mkdir",
    "printf",
    "until",
    "git",
}
KNOWN = OURS | TOOLS | SHELL
MARKS = {"&&", "||", ";", "&", "|"}


def commands_of(line):
    """Split a line of shell into its commands, as lists of words."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    command = []
    for word in [*words, ";"]:
        if word in MARKS:
            if command:
                yield command
            command = []
        elif command or not re.fullmatch(r"[A-Z_]+=.*", word):
            command.append(word)


def blocks(text):
    """Yield the indented and fenced blocks of a page, without those that are marked as text."""
    for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE):
        yield re.sub(r"^    ", "", block, flags=re.MULTILINE)
    yield from re.findall(r"^```(?:bash|sh|console)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shown():
    """Yield (page, command) of every block that begins with a command."""
    for page in PAGES:
        for block in blocks(page.read_text("utf-8")):
            if block.split()[0] in KNOWN:
                for line in block.replace("\\\n", " ").splitlines():
                    yield from ((page.name, shlex.join(words)) for words in commands_of(line))


def mentioned():
    """Yield (page, command) of commands inside a sentence or a table."""
    for page in PAGES:
        text = page.read_text("utf-8")
        yield from ((page.name, span) for span in re.findall(r"`((?:zspl|make) [^`\n]+)`", text))


def exists(word, rest):
    if word == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return all(name in targets or "=" in name for name in rest)
    if word == "python" and rest[0] == "-m":
        return importlib.util.find_spec(rest[1]) is not None
    if word == "python":
        return (ROOT / rest[0]).is_file()
    return word in KNOWN


@pytest.mark.parametrize(("page", "command"), sorted(set(shown())))
def test_a_command_of_a_block_exists(page, command):
    word, *rest = shlex.split(command)
    if word == "zspl" and rest[-1] != "--help":
        assert parser().parse_args(rest).command == rest[0]
    else:
        assert exists(word, rest), command


@pytest.mark.parametrize(("page", "command"), sorted(set(mentioned())))
def test_a_command_that_a_sentence_names_exists(page, command):
    word, *rest = command.split()
    if word == "make":
        assert exists(word, rest)
    elif "--" not in command:
        assert rest[0].rstrip(",") in parser().format_help()
    else:
        options = {option.partition("=")[0] for option in rest if option.startswith("--")}
        made = parser()
        usage = made._subparsers._group_actions[0].choices[rest[0]].format_help()
        assert [option for option in options if option not in usage] == []


def test_readme_shows_commands():
    assert {"zspl", "make"} <= {command.split()[0] for page, command in shown()}
