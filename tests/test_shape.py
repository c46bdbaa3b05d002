"""The shape of sort_faces.py: contents, banners, docstrings, help texts, imports, output."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SCRIPT

import sort_faces as sf

SOURCE = SCRIPT.read_text(encoding="utf-8")
LINES = SOURCE.splitlines()
TREE = ast.parse(SOURCE)
RULE = "# " + "=" * 76
WORK = SCRIPT.parent / "work"
COMPANIONS = sorted([*WORK.glob("*.py"), *WORK.glob("review/*.py")])
LONGEST_FUNCTION = 60  # lines; one screen
UNDOCUMENTED_LINES = 10  # a public function this long needs a docstring
HEAVY = (
    "cv2 onnxruntime insightface dlib scipy sklearn PIL pillow_heif tqdm filelock distributed"
    " jinja2 av scenedetect argcomplete tomllib difflib starlette uvicorn"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def banners() -> list[tuple[int, str]]:
    """(line number, section name) of every banner."""
    rules = [at for at, line in enumerate(LINES) if line == RULE]
    return [(at + 1, LINES[at + 1][2:]) for at in rules[::2]]


def section_of(line: int) -> str:
    """Name of the section a line number lies in; "" above the first banner."""
    return next((name for at, name in reversed(banners()) if at <= line), "")


def functions(node: ast.AST = TREE, owner: ast.AST = TREE) -> Iterator[tuple[Function, ast.AST]]:
    """Every function with the module, class or function it is defined in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child, owner
        yield from functions(child, child if isinstance(child, Function | ast.ClassDef) else owner)


def where(node: ast.AST, name: str = "") -> str:
    return f"line {node.lineno} {name or node.name}"


def length(node: Function) -> int:
    return node.end_lineno - node.lineno + 1


def arguments(node: Function, parent: ast.AST) -> list[ast.arg]:
    """Arguments that need an annotation: all but the first of a method."""
    given = node.args
    named = [*given.posonlyargs, *given.args]
    named = named[1:] if isinstance(parent, ast.ClassDef) else named
    return [*named, *given.kwonlyargs, *(arg for arg in (given.vararg, given.kwarg) if arg)]


def inherits_docstring(name: str, parent: ast.AST) -> bool:
    """Whether a base class in the same file documents the method of this name."""
    if not isinstance(parent, ast.ClassDef):
        return False
    bases = {base.id for base in parent.bases if isinstance(base, ast.Name)}
    return any(
        isinstance(node, Function) and node.name == name and ast.get_docstring(node)
        for other in ast.walk(TREE)
        if isinstance(other, ast.ClassDef) and other.name in bases
        for node in other.body
    )


def test_banners_are_three_lines():
    rules = [at for at, line in enumerate(LINES) if line.startswith("# ==")]
    assert [LINES[at] for at in rules] == [RULE] * len(rules)
    assert len(rules) % 2 == 0
    for top, bottom in zip(rules[::2], rules[1::2], strict=True):
        assert bottom == top + 2, where(TREE.body[0], f"banner at line {top + 1}")
        assert re.fullmatch(r"# \S.*", LINES[top + 1])
        assert LINES[top - 1] == "", f"no empty line above the banner at line {top + 1}"


def test_contents_are_the_banners():
    contents = sf.__doc__.split("\nContents\n", 1)[1].rstrip().splitlines()
    assert [line.strip() for line in contents] == [name for _, name in banners()]


@pytest.mark.parametrize("path", COMPANIONS, ids=lambda path: path.name)
def test_contents_of_a_companion_are_its_banners(path: Path):
    text = path.read_text(encoding="utf-8")
    contents = ast.get_docstring(ast.parse(text)).partition("\nContents\n")[2].splitlines()
    found = re.findall(rf"^{RULE}\n# (.+)\n{RULE}$", text, re.MULTILINE)
    assert [line.strip() for line in contents] == found


def test_every_function_is_annotated():
    bare = [
        where(node)
        for node, parent in functions()
        if node.returns is None or any(arg.annotation is None for arg in arguments(node, parent))
    ]
    assert not bare, "\n".join(bare)


def test_long_public_functions_have_docstrings():
    missing = [
        f"{where(node)} ({length(node)} lines)"
        for node, parent in functions()
        if not node.name.startswith("_")
        and not isinstance(parent, Function)  # nothing outside can call it
        and length(node) >= UNDOCUMENTED_LINES
        and not ast.get_docstring(node)
        and not inherits_docstring(node.name, parent)
    ]
    assert not missing, "\n".join(missing)


def test_no_function_is_longer_than_a_screen():
    long = [where(node) for node, _ in functions() if length(node) > LONGEST_FUNCTION]
    assert not long, "\n".join(long)


def test_numbers_at_module_level_carry_a_comment():
    def is_number(value: ast.expr) -> bool:
        """A number, or several numbers given to several names."""
        parts = value.elts if isinstance(value, ast.Tuple) else [value]
        parts = [part.operand if isinstance(part, ast.UnaryOp) else part for part in parts]
        return all(
            isinstance(part, ast.Constant) and type(part.value) in (int, float) for part in parts
        )

    tokens = tokenize.generate_tokens(io.StringIO(SOURCE).readline)
    commented = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    bare = [
        f"line {node.lineno} {ast.unparse(node)}"
        for node in TREE.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and node.value is not None
        and is_number(node.value)
        and not commented.intersection(range(node.lineno, node.end_lineno + 1))
    ]
    assert not bare, "\n".join(bare)


def test_print_stands_only_where_output_is_made():
    places = [
        where(node, section_of(node.lineno))
        for node in ast.walk(TREE)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
        if section_of(node.lineno) not in ("Progress", "Reporting", "Entry point")
    ]
    assert not places, "\n".join(places)


def test_sys_exit_is_called_once():
    calls = [ast.unparse(node.func) for node in ast.walk(TREE) if isinstance(node, ast.Call)]
    assert Counter(calls)["sys.exit"] == 1
    assert Counter(calls)["exit"] == Counter(calls)["quit"] == 0
    assert Counter(calls)["os._exit"] == 1  # stop_at_once, for signals while there is no main


def test_commands_have_unique_help():
    texts = {name: handler.__doc__ for name, (_, handler) in sf.COMMANDS.items()}
    assert all(texts.values())
    assert [text for text, times in Counter(texts.values()).items() if times > 1] == []


@pytest.mark.parametrize("name", sf.COMMANDS)
def test_command_names_agree(name: str):
    add_options, handler = sf.COMMANDS[name]
    word = name.replace("-", "_")
    assert (add_options.__name__, handler.__name__) == (f"add_{word}_options", f"cmd_{word}")
    assert f"Command: {name}" in [section for _, section in banners()]


@pytest.mark.parametrize("name", sf.COMMANDS)
def test_options_have_unique_help(name: str):
    parser = sf.OneLineParser()
    sf.COMMANDS[name][0](parser)
    texts = {action.dest: action.help for action in parser._actions}
    assert [dest for dest, text in texts.items() if not text] == []
    plain = Counter(text.split(" (default")[0] for text in texts.values())
    assert [text for text, times in plain.items() if times > 1] == []


def parsers(parser: sf.OneLineParser) -> Iterator[sf.OneLineParser]:
    """A parser and those of its commands and steps."""
    yield parser
    for step in parser.steps.values():
        yield from parsers(step)


def test_every_command_and_step_says_what_it_does_in_words_of_its_own():
    said = Counter(parser.description for parser in parsers(sf.build_parser()))
    assert None not in said and [text for text, times in said.items() if times > 1] == []


@pytest.mark.parametrize("parser", list(parsers(sf.build_parser())), ids=lambda parser: parser.prog)
def test_every_option_says_what_it_does(parser: sf.OneLineParser):
    flags = parser.options()
    assert flags and all(option.help for option in flags.values())
    texts = {option.dest: option.help.split(" (default")[0] for option in flags.values()}
    assert [text for text, times in Counter(texts.values()).items() if times > 1] == []


@pytest.mark.parametrize("name", sf.COMMANDS)
def test_every_command_is_tested(name: str):
    tests = sorted((SCRIPT.parent / "tests").glob("test_*.py"))
    called = re.compile(rf'\(\s*(run, )?"{name}"')
    assert any(called.search(path.read_text(encoding="utf-8")) for path in tests)


@pytest.mark.parametrize("path", COMPANIONS, ids=lambda path: path.name)
def test_companions_are_documented_and_annotated(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node, parent in functions(tree, tree):
        assert node.returns is not None, where(node)
        assert all(arg.annotation for arg in arguments(node, parent)), where(node)
        assert length(node) <= LONGEST_FUNCTION, where(node)
        hidden = node.name.startswith("_") or isinstance(parent, Function)
        documented = ast.get_docstring(node) or hidden
        assert documented or length(node) < UNDOCUMENTED_LINES, where(node)


def test_help_needs_no_heavy_module():
    code = (
        "import sys, sort_faces; sort_faces.build_parser(); "
        f"print(*(name for name in {HEAVY!r}.split() if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("words", [["--help"], ["video", "cut", "--help"], ["--version"]])
def test_help_does_without_numpy(words: list[str]):
    """A third of the time of `--help`, as tables and defaults name types and do not make arrays."""
    code = (
        "import contextlib, sys; sys.argv[0] = 'sort-faces'; import sort_faces as sf\n"
        f"with contextlib.suppress(SystemExit): sf.main({words!r})\n"
        "print('numpy._core' in sys.modules or 'numpy.core' in sys.modules)\n"
        "sf.np.ndarray; print('numpy._core' in sys.modules or 'numpy.core' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-2:] == ["False", "True"]


def defined_names() -> dict[str, int]:
    """{name: line of its section's banner} of everything this file defines at module level."""
    found: dict[str, int] = {}
    for node in TREE.body:
        if isinstance(node, Function | ast.ClassDef):
            names = [node.name]
        else:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            names = [p.id for t in targets if t for p in ast.walk(t) if isinstance(p, ast.Name)]
        found.update(dict.fromkeys(names, banner_above(node.lineno)))
    return found


def banner_above(line: int) -> int:
    return max((at for at, _ in banners() if at <= line), default=0)


def used_names(node: ast.AST, local: frozenset[str] = frozenset()) -> Iterator[ast.Name]:
    """The names a statement takes from the module; what only says a type may lie below."""
    if isinstance(node, Function | ast.Lambda | ast.ClassDef):
        inside = [part for part in ast.walk(node) if part is not node]
        stored = {p.id for p in inside if isinstance(p, ast.Name) and isinstance(p.ctx, ast.Store)}
        local |= stored | {part.arg for part in inside if isinstance(part, ast.arg)}
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        local |= {part.id for one in node.generators for part in ast.walk(one.target)
                  if isinstance(part, ast.Name)}  # fmt: skip
    if isinstance(node, ast.Name) and node.id not in local:
        yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    yield from used_names(part, local)


def test_a_section_builds_only_on_those_above():
    defined = defined_names()
    wrong = [
        f"line {name.lineno}: {section_of(name.lineno)} uses {name.id}, "
        f"which stands in {section_of(defined[name.id])}"
        for node in TREE.body
        for name in used_names(node)
        if defined.get(name.id, 0) > banner_above(node.lineno)
    ]
    assert len(defined) > 500 and not wrong, "\n".join(wrong)
