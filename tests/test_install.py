"""The wheel `pip install .` makes: what is in it, and the command it installs, from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from conftest import ROOT, demo_library, sf
from material import Library, tree

PARTS = (
    "sort_faces.py",
    "work",
    "pyproject.toml",
    "requirements.txt",
    "README.md",
    ".gitignore",
    ".ci",
)
MADE_HERE = shutil.ignore_patterns("__pycache__", "cache", "logs", "demo", "*.npz", "*.fsz")
PRIVATE = ("work/logs/embed.log", "work/cache/lib.npz", "work/videos/plan.json", "work/me.onnx")


def called(*words: object, **more: object) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300, **more)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A checkout somebody has worked in."""
    folder = tmp_path_factory.mktemp("checkout")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=MADE_HERE)
        else:
            shutil.copy(ROOT / part, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("needs hatchling, which makes the wheel, and it is not installed")
    for name in PRIVATE:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"mine")
    out = tmp_path_factory.mktemp("dist")
    made = called(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=source)
    assert made.returncode == 0, made.stderr
    [wheel] = out.iterdir()
    return wheel


class Installed:
    """The wheel in a virtual environment that finds the other packages in this one."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.home, self.elsewhere = folder / "home", folder / "elsewhere"
        called(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
        [self.site] = [*folder.glob("venv/[lL]ib/python*/site-packages"),
                       *folder.glob("venv/Lib/site-packages")]  # fmt: skip
        (self.site / "others.pth").write_text(sysconfig.get_paths()["purelib"])
        self.bin = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        self.python, self.command = self.bin / "python", self.bin / "sort-faces"
        put = called(sys.executable, "-m", "pip", "--python", self.python, "install", "--no-index",
                     "--no-deps", wheel)  # fmt: skip
        assert put.returncode == 0, put.stderr
        self.elsewhere.mkdir()
        kept = {"PATH": os.environ["PATH"], "SORT_FACES_LOGS": ""}
        self.env = {**os.environ, **kept, "HOME": str(self.home), "XDG_STATE_HOME": ""}
        del self.env["SORT_FACES_LOGS"]

    def __call__(self, *words: object) -> subprocess.CompletedProcess:
        return called(self.command, *words, cwd=self.elsewhere, env=self.env)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("needs pip, which is not installed")
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


def test_the_wheel_holds_the_tool_all_of_work_and_nothing_of_yours(source, wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {path.relative_to(source).as_posix() for path in source.rglob("work/**/*")
            if path.is_file() and path.suffix != ".pyc"} - set(PRIVATE)  # fmt: skip
    assert {"work/occlusion_net.onnx", "work/pages/page.css", "work/chain.sh"} <= ours
    assert names == {"sort_faces.py"} | {re.sub("^work/", "sort_faces_work/", n) for n in ours}


def test_its_dependencies_are_those_of_requirements_txt_without_the_tests(wheel):
    archive = zipfile.ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
    about = message_from_bytes(archive.read(name))
    assert about["Version"] == sf.VERSION
    words = re.compile(r"^[A-Za-z][\w.-]*", re.MULTILINE)
    plain = lambda text: {word.lower().replace("_", "-") for word in words.findall(text)}  # noqa: E731
    needed, tests = (ROOT / "requirements.txt").read_text().split("# The tests")
    required = [line for line in about.get_all("Requires-Dist") if "extra ==" not in line]
    depends = plain("\n".join(required))
    assert depends == plain(needed) and "numpy" in depends
    assert {"pytest", "ruff"} <= plain(tests) and not depends & plain(tests)


def test_the_command_runs_from_any_folder_and_writes_nothing_beside_itself(installed, tmp_path):
    library = Library(tmp_path, people=2, photos=3)
    before = set(tree(installed.site))
    told = installed("--help")
    assert (told.returncode, told.stderr) == (0, "") and told.stdout.startswith("usage: sort_faces")
    done = installed("cluster", library.path, library.out)
    assert done.returncode == 0, done.stderr
    pages = installed("report", library.out)  # by the templates of the wheel
    assert pages.returncode == 0 and (tmp_path / "out-report/index.html").exists(), pages.stderr
    now = {name for name in tree(installed.site) if "__pycache__" not in name}
    assert now == {name for name in before if "__pycache__" not in name}
    logs = sorted(path.name[:7] for path in installed.home.glob(".local/state/sort_faces/logs/*"))
    assert logs == ["cluster", "report-"]


def test_its_worker_may_be_another_python(installed, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.jpg").write_bytes(demo_library.demo_photo())
    cache = tmp_path / "lib.npz"
    words = ("--model", "dlib", "--det-size", "640", "--worker", sys.executable)
    done = installed("embed", tmp_path / "src", cache, *words)
    assert done.returncode == 0, done.stderr
    assert sf.load_cache(cache).files == 1


def test_the_commands_it_tells_to_type_are_its_own(installed):
    code = "import sort_faces as sf; print(sf.own_command('status', 'x'))"
    told = called(installed.python, "-c", code, cwd=installed.elsewhere, env=installed.env)
    assert told.stdout.split() == [str(installed.python), "-m", "sort_faces", "status", "x"]
    done = called(*told.stdout.split(), cwd=installed.elsewhere, env=installed.env)
    assert done.returncode == 2 and "x" in done.stderr
    path = f"{installed.bin}{os.pathsep}{installed.env['PATH']}"
    env = {**installed.env, "PATH": path}
    told = called(installed.python, "-c", code, cwd=installed.elsewhere, env=env)
    assert told.stdout == "sort-faces status x\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_its_chain_scripts_write_where_its_logs_are(installed):
    script = installed.site / "sort_faces_work/status.sh"
    told = called("bash", script, cwd=installed.elsewhere, env=installed.env)
    logs = installed.home / ".local/state/sort_faces/logs"
    assert told.stderr == f"status: no log of a photo chain in {logs}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("how", ["script", "module", "command"])
def test_a_signal_while_it_loads_is_one_line(request, tmp_path, how):
    (tmp_path / "msgspec.py").write_text(
        f"import os, signal, time\nos.kill(os.getpid(), {int(signal.SIGINT)})\ntime.sleep(20)\n"
    )
    words = {"script": [sys.executable, ROOT / "sort_faces.py"],
             "module": [sys.executable, "-m", "sort_faces"]}  # fmt: skip
    begin = words.get(how) or [request.getfixturevalue("installed").command]
    path = os.pathsep.join([str(tmp_path), *[str(ROOT)] * (how == "module")])
    done = called(*begin, "--help", env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "sort_faces: interrupted; run the same command again to go on\n"


def test_a_worker_takes_no_packages_from_beside_the_tool(source, tmp_path):
    """Where the tool is installed, those of another Python lie there."""
    folder = tmp_path / "site-packages"
    shutil.copytree(source, folder)
    (folder / "msgspec.py").write_text("raise ImportError('of another Python')")
    done = called(sys.executable, folder / "work/dml_worker.py", "--help")
    assert done.returncode == 0 and "usage: dml_worker" in done.stdout, done.stderr
