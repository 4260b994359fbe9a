"""
The repository about itself: what a reviewer should not have to look at.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
import typer.main

from batchrank.cli.main import app
from batchrank.operate.init import packaged_schema, schema_text

ROOT = Path(__file__).parents[2]
BYTES_MAX = 1_000_000


def written(name: str) -> Iterator[Path]:
    """
    The Python files in a folder, but for those in hidden ones: the benchmarks keep the environments
    of others there.
    """
    for place, folders, files in os.walk(ROOT / name):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        yield from (Path(place, file) for file in files if file.endswith(".py"))


MODULES = sorted(written("batchrank"))
CODE = sorted(path for name in ("batchrank", "tests", "jobs", "pins") for path in written(name))


def shown(path: Path) -> str:
    """
    Where a file lies in the repository.
    """
    return str(path.relative_to(ROOT))


def tracked() -> list[Path]:
    """
    Every file that is in the repository, or is about to be.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:  # a source archive has no history
        left_out = {".venv", ".git", "__pycache__", "build", "dist"}
        files = [path for path in ROOT.rglob("*") if left_out.isdisjoint(path.parts)]
    else:
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return sorted(path for path in files if path.is_file())


@cache
def parsed(path: Path) -> ast.Module:
    """
    A file's syntax tree.
    """
    return ast.parse(path.read_text("utf-8"))


# --- modules --------------------------------------------------------------------------------------


def test_every_module_says_what_it_is() -> None:
    """
    It opens with a docstring of at least two sentences: what it does, what it owns or never does.
    """
    headers = {shown(path): ast.get_docstring(parsed(path)) or "" for path in MODULES}

    sentence = re.compile(r"[^.?!]\S*[.?!](?=\s|$)")
    assert {} == {name: h for name, h in headers.items() if len(sentence.findall(h)) < 2}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """
    Each function of a module with its length in lines, without its docstring.
    """
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                lines -= (first.end_lineno or 0) - first.lineno + 1
            yield f"{shown(path)}:{node.lineno} {node.name}", lines


def test_functions_are_short() -> None:
    """
    Nine in ten have at most 25 lines, none has more than 60.
    """
    lengths = dict(function for path in MODULES for function in functions(path))

    assert {} == {name: lines for name, lines in lengths.items() if lines > 60}
    assert sum(lines <= 25 for lines in lengths.values()) >= 0.9 * len(lengths)


BANNED = re.compile(r"(^|_)(utils?|helpers?|common|managers?)($|_)|^process_", re.IGNORECASE)
"""Names that say nothing."""


def names_in(path: Path) -> Iterator[str]:
    """
    Every name that a module gives: its own, those of classes, functions, parameters, variables.
    """
    yield path.stem
    for node in ast.walk(parsed(path)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.alias(asname=str(name)):
                yield name


def test_names_say_something() -> None:
    """
    Neither utils nor helpers, no manager, nothing that merely processes.
    """
    held = {shown(path): {path.parent.name, *names_in(path)} for path in MODULES}

    silent = {file: sorted(filter(BANNED.search, names)) for file, names in held.items()}
    assert {} == {file: names for file, names in silent.items() if names}


# --- exceptions to the rules ----------------------------------------------------------------------


SWITCH = re.compile("noqa|type: ?ignore")


def comments(path: Path) -> Iterator[tuple[int, str, str]]:
    """
    Each comment that switches a check off: its line, itself, and a comment that ends above it.
    """
    text = path.read_text("utf-8")
    if not SWITCH.search(text):
        return
    lines = text.splitlines()
    for token in tokenize.generate_tokens(StringIO(text).readline):
        if token.type == tokenize.COMMENT and SWITCH.search(token.string):
            above = lines[token.start[0] - 2].strip() if token.start[0] > 1 else ""
            yield token.start[0], token.string, above if above.startswith("#") else ""


REASON = re.compile(r"(?:noqa: [A-Z0-9, ]+|type: ?ignore\[[a-z, -]+\])(.*)")


def test_every_exception_has_its_reason_beside_it() -> None:
    """
    Behind it in the same line, or in the line above; and it names what it switches off.
    """
    bare = []
    for path in CODE:
        for line, comment, above in comments(path):
            found = REASON.search(comment)
            if not found or not (re.search(r"\w{2}", found[1]) or above):
                bare.append(f"{shown(path)}:{line} {comment}")

    assert [] == bare


def test_every_rule_that_is_switched_off_has_its_reason() -> None:
    """
    In the settings of the linter and the type checker, at the end of the line.
    """
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    settings = text[text.index("\nignore = [") : text.index("[tool.pytest")].splitlines()
    switched_off = re.compile(r'    "[A-Z]+[0-9]*"|"[^"]+" = \["|ignore_\w+ = true')

    assert [] == [line for line in settings if switched_off.match(line) and "#" not in line]


# --- files ----------------------------------------------------------------------------------------

SECRETIVE = {
    "an address of a package registry": r"pypi[.]org|python[h]osted|index[-]url|[r]egistry\.npm",
    "somebody's home": r"(?<![\w.}])/(home|Users|roo[t])/(?!me\b)",
    "the machine that it was made on": r"(?<![\w.}])/wor[k]/",
}
"""What no file may hold, as patterns."""


@pytest.mark.parametrize("what", SECRETIVE)
def test_no_file_tells_where_it_was_made(what: str) -> None:
    """
    Neither registries nor folders of one machine.
    """
    pattern = re.compile(SECRETIVE[what])
    found = []
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # data
        found += [
            f"{shown(path)}:{n} {line.strip()[:80]}"
            for n, line in enumerate(text.splitlines(), 1)
            if pattern.search(line)
        ]

    assert [] == found


def test_no_file_is_large() -> None:
    """
    What is larger than a megabyte is made, not kept.
    """
    large = {shown(path): path.stat().st_size for path in tracked()}

    assert {} == {name: size for name, size in large.items() if size > BYTES_MAX}


@pytest.mark.parametrize("path", sorted((ROOT / "pins").glob("*.txt")), ids=shown)
def test_every_pin_has_its_hashes_and_no_address(path: Path) -> None:
    """
    Exact versions, each with at least one hash; where they come from is the installer's business.
    """
    statements = path.read_text("utf-8").replace("\\\n", " ").splitlines()
    pins = [line for line in statements if line.strip() and not line.startswith("#")]

    assert pins
    form = re.compile(r"[a-z0-9][a-z0-9._-]*==\S+( ;[^#]+?)?( +--hash=sha256:[0-9a-f]{64})+ *")
    assert [] == [pin[:60] for pin in pins if not form.fullmatch(pin)]
    assert "://" not in path.read_text("utf-8")


def test_every_dependency_is_pinned() -> None:
    """
    What the project needs to run is in what `make` installs.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {re.split("[<>=]", line, maxsplit=1)[0] for line in project["dependencies"]}
    pins = (ROOT / "pins" / "run.txt").read_text("utf-8")
    pinned = set(re.findall("^([a-z0-9._-]+)==", pins, re.MULTILINE))

    assert needed
    assert needed <= pinned


def test_the_schema_that_comes_with_the_package_is_that_of_the_code() -> None:
    """
    `make schema` writes it anew.
    """
    assert schema_text() == packaged_schema()


# --- documents ------------------------------------------------------------------------------------

DOCUMENTS = [
    path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.is_file()
]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined] # it is a group
FENCE = re.compile(r"^( *)```[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
CALLED = re.compile(r"(?:^|[\s/(;&|`])batchrank +([a-z][a-z-]*)\b([^\n|;&#`)]*)", re.MULTILINE)


def commands_in(text: str) -> list[tuple[str, str]]:
    """
    Each command line of batchrank in the fenced blocks of a document: the command, and the rest.
    """
    blocks = [block.replace("\\\n", " ") for _, block in FENCE.findall(text)]
    return [(name, rest) for block in blocks for name, rest in CALLED.findall(block)]


def strangers(text: str) -> list[str]:
    """
    What a document calls that there is not.
    """
    wrong = []
    for name, rest in commands_in(text):
        if name not in COMMANDS:
            wrong.append(name)
            continue
        known = {o for p in COMMANDS[name].params for o in (*p.opts, *p.secondary_opts)}
        given = [word.partition("=")[0] for word in rest.split() if word.startswith("--")]
        wrong += [f"{name} {option}" for option in given if option not in known | {"--help"}]
    return wrong


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_documents_call_commands_that_exist(path: Path) -> None:
    """
    With options that they have.
    """
    assert [] == strangers(path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        pytest.param("```sh\nbatchrank run job.toml --limit 5\n```", [], id="a command"),
        pytest.param("```\n$ .venv/bin/batchrank plan j.toml\n```", [], id="with its path"),
        pytest.param("```sh\nbatchrank ruin job.toml\n```", ["ruin"], id="no command"),
        pytest.param("```sh\nbatchrank run j --limitt=5\n```", ["run --limitt"], id="no option"),
        pytest.param(
            "```sh\nbatchrank run \\\n  j --limitt\n```", ["run --limitt"], id="two lines"
        ),
        pytest.param("1. so:\n   ```sh\n   batchrank ruin\n   ```", ["ruin"], id="in a list"),
        pytest.param("batchrank ruins nothing", [], id="prose"),
        pytest.param("```toml\n# batchrank reads this\n```", ["reads"], id="words in a block"),
    ],
)
def test_what_is_called_in_documents_is_found(text: str, wrong: list[str]) -> None:
    """
    In fenced blocks only; there, whatever follows the name is a command.
    """
    assert wrong == strangers(text)
