"""Break decisions on purpose and see which tests notice: a small mutation run, one at a time.

    python tests/bench/mutate.py identities                 # a group of GROUPS below
    python tests/bench/mutate.py --functions gate_faces trim_outliers \\
        --tests tests/test_core_identities.py               # or functions and tests by name
    python tests/bench/mutate.py era --list                 # only say what would be changed
    python tests/bench/mutate.py era --sample 40 --seed 7   # a seeded choice
    python tests/bench/mutate.py era --save era.json        # keep the outcome ...
    python tests/bench/mutate.py --again era.json --tests tests/test_decisions.py
                                                            # ... and try its survivors again

Every mutant is one small change within one function or class of sort_faces.py: a comparison at
its boundary or turned round, and/or, not, + and -, & and |, a number or a named constant one up
or down, min/max, any/all, argmin/argmax, the two sides of an if, one option or default in place of
another, arguments of a dataclass left away. Names that sort_faces.py does not have are refused.

sort_faces.py itself is never touched: tests/ and the program are copied into a temporary folder
(shared/ and work/ are linked), the copy is changed, and pytest runs on it with -x in a forked
child, one after the other, within --limit seconds. A run without any change comes first and must
pass. Outcomes: killed (a test failed), timeout (counts as killed), SURVIVED. The exit code is 0
whatever survives: many survivors are equivalent, and only a reader can tell.

More arguments for pytest follow after `--`:  mutate.py era -- -k era
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import json
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
sys.dont_write_bytecode = True  # two mutants of one size within a second would share a .pyc

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 16 << 30  # bytes of address space of a mutant

GROUPS: dict[str, tuple[str, str, str]] = {  # functions, test files, further pytest arguments
    "grouping": (
        "nearest groups_of join_labels threshold_components open_pairs average_linkage "
        "reciprocal_pairs",
        "test_core_grouping",
        "",
    ),
    "duplicates": (
        "near_duplicate_labels nearest_keeper same_box_size",
        "test_core_duplicates",
        "",
    ),
    "identities": (
        "refine_identities merge_by_centroid gate_faces trim_outliers one_face_per_photo "
        "join_centroids RefineParams",
        "test_core_identities test_refine test_extend",
        "",
    ),
    "quality": (
        "quality_terms frontality landmark_symmetry composite_quality QualityWeights length_term "
        "rank_term",
        "test_core_quality",
        "",
    ),
    "geometry": (
        "crop_square box_iou box_overlap box_area distinct_faces tile_windows",
        "test_core_geometry",
        "",
    ),
    "tracks": (
        "Gates Reach stitch_tracks frame_faults usable_frames track_fault sample_times "
        "track_segments merge_segments segment_fault Segment",
        "test_video_core",
        "",
    ),
    "score": (
        "score_tracks usable_segments drop_banned planned_clip strip_of rejected_row video_tracks",
        "test_video_core test_video test_video_review",
        "-k 'not mixtape and not killed and not worker and not chain and not hundred'",
    ),
    "clean": (
        "complete_linkage_groups occlusion_verdict era_fragments anchor_of nearest_era split_eras "
        "year_of year_range EraParams",
        "test_maintain test_occlusion",
        "",
    ),
    "occlusion": (
        "cmd_occlusion_apply occlusion_moves load_scores",
        "test_occlusion test_corpus_review",
        "-k 'occlu or score or apply or verdict or prune or thin or mask'",
    ),
    "consolidate": (
        "consolidate answer_matrix merge_moves",
        "test_maintain",
        "-k 'not era and not optimi'",
    ),
    "era": ("split_decision era_copy extend_era_moves", "test_maintain", "-k era"),
    "optimize": (
        "byte_duplicates leave_one_out near_duplicates cmd_optimize",
        "test_maintain",
        "",
    ),
    "verify": (
        "face_count_findings",
        "test_maintain test_corpus",
        "-k 'verify or gate or optimi or identity or consumer'",
    ),
    "extend": ("extend_raw extend_refined next_names", "test_extend test_refine", ""),
    "dedup": ("dedup_library", "test_dedup", ""),
    "export": (
        "plan_faceset first_of_each candidate_groups judge_crop",
        "test_export_swap",
        "-k 'not kill and not shape_the_crop'",
    ),
}

# --- what can be changed ----------------------------------------------------

NEAR = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
OPPOSITE = {
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
PAIRS = ("min max", "any all", "argmin argmax", "minimum maximum", "nanmin nanmax", "floor ceil")
TWINS = {a: b for pair in PAIRS for a, b in (pair.split(), reversed(pair.split()))}
OPTIONS = ("args", "params", "gates", "reach", "thresholds", "self")


@dataclass(frozen=True)
class Mutant:
    """One change: source[start:end] becomes `text`."""

    function: str
    line: int
    start: int  # offset in the source, UTF-8 bytes
    end: int
    was: str
    text: str

    @property
    def name(self) -> str:
        was, text = (" ".join(part.split()) for part in (self.was, self.text))
        at = next((i for i, (a, b) in enumerate(zip(was, text, strict=False)) if a != b), 0)
        at = max(0, at - 30) if max(len(was), len(text)) > 80 else 0
        return f"{was[at : at + 60]}  ->  {text[at : at + 60]}"


class Mutator:
    """Finds the mutants of a program."""

    def __init__(self, source: bytes) -> None:
        self.source, self.tree = source, ast.parse(source)
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.numbers = {}  # values of the module's numeric constants
        self.fields: list[str] = []  # of Thresholds, whose names choose a default
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = node.value
                if isinstance(value, ast.Constant) and type(value.value) in (int, float):
                    self.numbers[node.targets[0].id] = value.value
            if isinstance(node, ast.ClassDef) and node.name == "Thresholds":
                self.fields = [f.target.id for f in node.body if isinstance(f, ast.AnnAssign)]
        kinds = (ast.FunctionDef, ast.ClassDef)
        self.known = {node.name: node for node in self.tree.body if isinstance(node, kinds)}

    def mutants(self, function: str) -> Iterator[Mutant]:
        if function not in self.known:
            raise SystemExit(f"mutate: sort_faces.py has no function or class {function}")
        top = self.known[function]
        options: dict[str, list[str]] = {}  # what the function reads of args, params, ...
        for node in ast.walk(top):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                options.setdefault(node.value.id, []).append(node.attr)
        for node in self.inside(top):
            for new in self.changes(node, options):
                yield self.mutant(function, node, new)
        if isinstance(top, ast.ClassDef):
            own = [f for f in top.body if isinstance(f, ast.AnnAssign) and f.value is not None]
            for here, other in zip(own, own[1:] + own[:1], strict=True):
                if ast.dump(here.value) != ast.dump(other.value):
                    yield self.mutant(function, here.value, other.value)

    def inside(self, top: ast.AST) -> Iterator[ast.AST]:
        """The nodes below one, without annotations, docstrings and f-strings."""
        for name, value in ast.iter_fields(top):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            for node in value if isinstance(value, list) else [value]:
                text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                if isinstance(node, ast.AST) and not isinstance(node, ast.JoinedStr) and not text:
                    yield node
                    yield from self.inside(node)

    def mutant(self, function: str, node: ast.AST, new: ast.AST) -> Mutant:
        start = self.lines[node.lineno - 1] + node.col_offset
        end = self.lines[node.end_lineno - 1] + node.end_col_offset
        text = f"({ast.unparse(new)})"
        was = self.source[start:end].decode()
        return Mutant(function, node.lineno, start, end, was, text)

    def changes(self, node: ast.AST, options: dict[str, list[str]]) -> Iterator[ast.AST]:
        """What may stand in place of a node."""
        if isinstance(node, ast.Compare):
            for at, op in enumerate(node.ops):
                for table in (NEAR, OPPOSITE):
                    if type(op) in table:
                        new = copy.deepcopy(node)
                        new.ops[at] = table[type(op)]()
                        yield new
        elif isinstance(node, ast.BoolOp):
            new = copy.deepcopy(node)
            new.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield new
        elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not joins(node):
            new = copy.deepcopy(node)
            new.op = ARITHMETIC[type(node.op)]()
            yield new
        elif isinstance(node, ast.UnaryOp):
            yield node.operand
        elif isinstance(node, ast.IfExp):
            yield ast.IfExp(node.test, node.orelse, node.body)
        elif isinstance(node, ast.Constant):
            yield from self.other_constants(node)
        elif isinstance(node, ast.Name) and node.id in self.numbers:
            up, down = (1, -1) if isinstance(self.numbers[node.id], int) else (0.01, -0.01)
            for step in (up, down):
                yield ast.BinOp(node, ast.Add(), ast.Constant(step))
        elif isinstance(node, ast.Name) and node.id in TWINS:
            yield ast.Name(TWINS[node.id])
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            if node.attr in TWINS:
                yield ast.Attribute(node.value, TWINS[node.attr])
            if isinstance(node.value, ast.Name) and node.value.id in OPTIONS:
                others = sorted(set(options[node.value.id]))
                other = others[(others.index(node.attr) + 1) % len(others)]
                if other != node.attr:
                    yield ast.Attribute(node.value, other)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            for left in range(len(node.args) if node.func.id.endswith("Params") else 0):
                yield ast.Call(node.func, node.args[:left], node.keywords)

    def other_constants(self, node: ast.Constant) -> Iterator[ast.Constant]:
        value = node.value
        if isinstance(value, bool):
            yield ast.Constant(not value)
        elif isinstance(value, int):
            yield ast.Constant(value + 1)
            if value:
                yield ast.Constant(value - 1)
        elif isinstance(value, float):
            yield ast.Constant(value + 0.1)
            yield ast.Constant(value - 0.1)
        elif isinstance(value, str) and value in self.fields:
            yield ast.Constant(self.fields[(self.fields.index(value) + 1) % len(self.fields)])


def joins(node: ast.BinOp) -> bool:
    """Whether it is about texts or lists, which only + knows."""
    return any(
        isinstance(side, ast.JoinedStr | ast.List)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


# --- running the tests ------------------------------------------------------


class Bench:
    """A copy of the program and its tests, in which mutants live one after the other."""

    def __init__(self, folder: Path, source: bytes, arguments: list[str], limit: float) -> None:
        self.folder, self.source, self.limit = folder / "repo", source, limit
        self.arguments = arguments
        skipped = shutil.ignore_patterns("__pycache__", ".hypothesis")
        shutil.copytree(ROOT / "tests", self.folder / "tests", ignore=skipped)
        for name in ("docs", "work", "README.md", "requirements.txt"):
            if (ROOT / name).exists():
                (self.folder / name).symlink_to(ROOT / name)
        if (ROOT.parent / "shared").exists():
            (folder / "shared").symlink_to(ROOT.parent / "shared")

    def outcome(self, source: bytes) -> str:
        """What the tests say of a program: "passed", "killed" or "timeout"."""
        (self.folder / "sort_faces.py").write_bytes(source)
        child = os.fork()
        if not child:
            os.setsid()
            os._exit(self.child())
        deadline = time.monotonic() + self.limit
        try:
            while time.monotonic() < deadline:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    child = 0
                    return "passed" if os.waitstatus_to_exitcode(status) == 0 else "killed"
                time.sleep(0.01)
            return "timeout"
        finally:
            if child:  # too slow, or we are asked to stop
                os.killpg(child, signal.SIGKILL)  # the session of the child, nobody else's
                os.waitpid(child, 0)

    def child(self) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        sink = os.open(self.folder.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        import pytest

        quiet = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--tb=line"]
        scratch = ["--basetemp", str(self.folder.parent / "scratch")]
        try:
            return int(pytest.main([*quiet, *scratch, *self.arguments]))
        except BaseException:
            return 99

    def last_words(self) -> str:
        return "\n".join((self.folder.parent / "output.txt").read_text().splitlines()[-12:])


def preload() -> None:
    """What every child needs; forks share it."""
    for name in ("cluster.hierarchy", "sparse.csgraph", "spatial.distance"):
        importlib.import_module(f"scipy.{name}")
    for name in ("hypothesis.strategies", "numpy", "pytest"):
        importlib.import_module(name)


def apply(source: bytes, mutant: Mutant) -> bytes:
    return source[: mutant.start] + mutant.text.encode() + source[mutant.end :]


def chosen(args: argparse.Namespace, source: bytes) -> list[Mutant]:
    """The mutants asked for, in the order of the program."""
    if args.again:
        rows = json.loads(args.again.read_text())
        rows = [{k: v for k, v in r.items() if k not in ("outcome", "name")} for r in rows
                if r["outcome"] == "SURVIVED"]  # fmt: skip
        found = [Mutant(**row) for row in rows]
        if any(source[m.start : m.end].decode() != m.was for m in found):
            raise SystemExit(f"mutate: {args.again}: sort_faces.py has changed since")
        return found
    names = args.functions or GROUPS[args.group][0].split()
    mutator = Mutator(source)
    found = [mutant for name in names for mutant in mutator.mutants(name)]
    found = list({(m.start, m.end, m.text): m for m in found}.values())
    if args.sample and args.sample < len(found):
        picked = random.Random(args.seed).sample(range(len(found)), args.sample)
        found = [found[at] for at in sorted(picked)]
    return found


def table(rows: list[dict], seconds: float) -> str:
    """Killed and survived per function, and every survivor."""
    lines = ["", f"{'function':28}{'mutants':>8}{'killed':>8}{'survived':>9}"]
    for name in dict.fromkeys(row["function"] for row in rows):
        own = [row["outcome"] for row in rows if row["function"] == name]
        left = own.count("SURVIVED")
        lines.append(f"{name:28}{len(own):8}{len(own) - left:8}{left:9}")
    left = sum(row["outcome"] == "SURVIVED" for row in rows)
    lines.append(f"{'all':28}{len(rows):8}{len(rows) - left:8}{left:9}   {seconds:.0f} s")
    lines += [
        f"  {row['function']}:{row['line']}  {row['name']}"
        for row in rows
        if row["outcome"] == "SURVIVED"
    ]
    return "\n".join(lines)


def main() -> None:
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("group", nargs="?", choices=list(GROUPS))
    p.add_argument("--functions", nargs="+", metavar="NAME")
    p.add_argument("--tests", nargs="+", default=[], metavar="FILE")
    p.add_argument("--again", type=Path, metavar="FILE", help="survivors of a --save")
    p.add_argument("--save", type=Path, metavar="FILE")
    p.add_argument("--sample", type=int, default=0, metavar="N")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--limit", type=float, default=120.0, metavar="SECONDS", help="of one mutant")
    p.add_argument("--list", action="store_true")
    args = p.parse_args(sys.argv[1:at])
    if not (args.group or args.functions or args.again):
        p.error("name a group, --functions or --again")
    source = (ROOT / "sort_faces.py").read_bytes()
    mutants = chosen(args, source)
    if args.list:
        for mutant in mutants:
            print(f"{mutant.function}:{mutant.line}  {mutant.name}")
        print(len(mutants), "mutants")
        return
    tests, more = list(args.tests), sys.argv[at + 1 :]
    if args.group and not tests:
        _, files, flags = GROUPS[args.group]
        tests = [f"tests/{name}.py" for name in files.split()]
        more = [*shlex.split(flags), *more]
    if not tests:
        p.error("--functions and --again need --tests")
    preload()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("mutate: stopped"))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        bench = Bench(Path(folder), source, [*tests, *more], args.limit)
        if bench.outcome(source) != "passed":
            raise SystemExit(f"mutate: the tests fail without a change\n{bench.last_words()}")
        usual = time.monotonic() - begin
        print(f"{len(mutants)} mutants, {usual:.1f} s for the tests alone", flush=True)
        rows = []
        for mutant in mutants:
            told = bench.outcome(apply(source, mutant))
            told = "SURVIVED" if told == "passed" else told
            rows.append({**asdict(mutant), "name": mutant.name, "outcome": told})
            print(f"{told:9} {mutant.function}:{mutant.line}  {mutant.name}", flush=True)
            if args.save:
                args.save.write_text(json.dumps(rows, indent=1))
    print(table(rows, time.monotonic() - begin))


if __name__ == "__main__":
    main()
