"""What a newcomer types: nothing, typos, TAB, a settings file, another Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SCRIPT, sf
from material import Library, refused

# --- help and typos ---------------------------------------------------------


@pytest.mark.parametrize("argv", [(), ("occlusion",), ("video",), ("era",)])
def test_without_a_word_the_help_is_shown(run, argv):
    code, out, err = run(*argv)
    assert (code, err) == (2, "")
    assert out.startswith("usage: sort_faces") and "--help" in out


@pytest.mark.parametrize(
    ("argv", "said", "meant", "see"),
    [
        ("refin lib.npz out", "'refin'", "refine", "sort_faces"),
        ("occlusion scor out", "'scor'", "score", "sort_faces occlusion"),
        ("refine lib.npz out --min-fases 3", "--min-fases", "--min-faces", "sort_faces refine"),
        ("refine --min-fases 3", "--min-fases", "--min-faces", "sort_faces refine"),
        ("refine out --min-fases=3", "--min-fases=3", "--min-faces", "sort_faces refine"),
        ("video score work --max-yow 3", "--max-yow", "--max-yaw", "sort_faces video score"),
        ("cluster lib.npz out --link hrd", "'hrd'", "hard", "sort_faces cluster"),
    ],
)
def test_a_typo_is_answered_with_what_was_meant(run, argv, said, meant, see):
    code, out, err = run(*argv.split())
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and said in err
    assert f", did you mean {meant}? see {see} --help" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("refine lib.npz out more", "unrecognized arguments: more; see sort_faces refine --help"),
        ("refine lib.npz out --zzz", "unrecognized arguments: --zzz; see sort_faces refine --help"),
        ("refine lib.npz", "required: OUT; see sort_faces refine --help"),
        ("zzz", "(choose from embed, cluster,"),
        ("-q refine lib.npz out", "unrecognized arguments: -q; see sort_faces --help"),
    ],
)
def test_what_resembles_nothing_is_told_without_a_guess(run, argv, said):
    code, out, err = run(*argv.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err and "did you mean" not in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--json status out", "--json: options come after status; see sort_faces --help"),
        ("--config me.toml status out", "--config: options come after status; see"),
        ("--min-short=3 run a b", "--min-short=3: options come after run; see"),
        ("decisions --all undo lib.npz", "--all: options come after undo; see sort_faces deci"),
    ],
)
def test_an_option_before_its_command_is_told_where_it_belongs(run, argv, said):
    code, out, err = run(*argv.split())
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err


def test_a_table_of_names_in_any_script_is_aligned(capsys):
    names = ("Anna", "山田太郎", "José", "e\u0301te\u0301")
    sf.print_table("people", [{"name": name, "bundle": "x"} for name in names])
    lines = capsys.readouterr().out.splitlines()[2:]
    # columns of a terminal before the last one, by hand: eight for the widest name, two between
    assert lines[1:] == [f"  Anna{6 * ' '}x", "  山田太郎  x", f"  José{6 * ' '}x",
                         f"  e\u0301te\u0301{7 * ' '}x"]  # fmt: skip


def test_a_double_dash_ends_the_options(run, tmp_path):
    refused(run, "status", "--", "--nowhere", word="--nowhere")


# --- completion -------------------------------------------------------------

COMPLETE = """
export PATH="{bin}:$PATH"
cd "{folder}"
. <(activate-global-python-argcomplete --dest=-)
try() {{
    COMP_LINE=$1 COMP_POINT=${{#1}} COMP_TYPE=9 COMPREPLY=()
    read -ra COMP_WORDS <<<"$1"
    COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    _python_argcomplete_global "${{COMP_WORDS[0]}}"
    echo "${{COMPREPLY[*]}}"
}}
try "python sort_faces.py re"
try "python sort_faces.py run --min-f"
try "python sort_faces.py video cu"
"""


def test_bash_completes_commands_steps_and_options():
    folder = Path(sys.executable).parent
    if not (folder / "activate-global-python-argcomplete").exists() or not shutil.which("bash"):
        pytest.skip("needs bash and argcomplete")
    code = COMPLETE.format(bin=folder, folder=SCRIPT.parent)
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True)
    commands, options, step = done.stdout.splitlines()
    assert set(commands.split()) == {"refine", "restore", "report", "review"}, done.stderr
    assert set(options.split()) == {"--min-faces", "--min-face-short"}
    assert step.split() == ["cut"]


# --- settings file ----------------------------------------------------------


@pytest.fixture
def settings(tmp_path):
    """Write a settings file: settings(text) -> its path, which no plain ASCII describes."""

    def write(text: str) -> Path:
        path = tmp_path / "Einstellungen ☀.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def parsed(*argv: object) -> object:
    return sf.parse_command_line([str(part) for part in argv])


def test_command_line_before_table_before_top_before_default(settings):
    path = settings('min-faces = 3\nmin-blur = 7.5\nmodel = "dlib"\n[refine]\nmin-faces = 4\n')
    refine = ("refine", "lib.npz", "out", "--config", path)
    assert parsed("refine", "lib.npz", "out").min_faces == 15
    assert parsed("run", "src", "out", "--config", path).min_faces == 3
    assert parsed(*refine).min_faces == 4
    assert parsed(*refine, "--min-faces", 5).min_faces == 5
    args = parsed(*refine)
    assert (args.min_blur, args.min_short) == (7.5, 60.0)
    assert parsed("run", "src", "out", "--config", path).model == "dlib"


def test_settings_reach_the_decision(run, settings, tmp_path):
    library = Library(tmp_path, people=3, photos=6)
    path = settings("[refine]\nmin_faces = 6\n[cluster]\nthreshold = 0.5\n")
    code, _, err = run("refine", library.path, library.out, "--config", path)
    assert code == 0, err
    manifest = sf.json.loads((library.out / "refine_manifest.json").read_text())
    assert manifest["params"]["min_faces"] == 6 and len(manifest["facesets"]) == 3


def test_the_example_in_the_docs_is_a_settings_file(settings):
    page = (SCRIPT.parent / "docs/run.md").read_text(encoding="utf-8")
    path = settings(page.split("```toml\n")[1].split("```")[0])
    args = parsed("refine", "lib.npz", "out", "--config", path)
    assert args.min_faces == 8 and args.settings["video.run.max-yaw"] == 25


def test_steps_have_tables_of_their_own(settings):
    path = settings("[video]\nmax-yaw = 20\n[video.score]\nmax-yaw = 25\n")
    assert parsed("video", "score", "work", "--config", path).max_yaw == 25.0
    assert parsed("video", "run", "in", "work", "out", "--config", path).max_yaw == 20.0


def test_every_kind_of_option_can_be_set(settings):
    path = settings(
        'include = ["*.jpg", "*.png"]\nexclude = "raw*"\ntiles = true\nquiet = true\n'
        'link = "hard"\nweight-sharpness = 0\npath-map = "/mnt=Z:"\nmodel-root = "~/m"\n'
        "[video.track]\ntrack-iou = 0.5\n"
    )
    args = parsed("run", "src", "out", "--config", path)
    assert (args.include, args.exclude) == (["*.jpg", "*.png"], ["raw*"])
    assert (args.tiles, args.quiet, args.link) == (True, True, "hard")
    assert (args.weight_sharpness, args.path_map) == (0.0, ("/mnt", "Z:"))
    assert parsed("video", "track", "work", "--config", path).track_iou == 0.5


def test_a_repeated_option_replaces_the_one_of_the_file(settings):
    path = settings('include = ["*.jpg", "*.png"]\n')
    command = ("run", "src", "out", "--config", path, "--include", "a", "--include", "b")
    assert parsed(*command).include == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min-fases = 3", "min-fases: no such option, did you mean min-faces?"),
        ("[refin]\nx = 1", "[refin]: no such command, did you mean refine?"),
        ("[video.scor]\nx = 1", "[video] [scor]: no such command, did you mean score?"),
        ("[refine]\ntiles = true", "[refine] tiles: no such option"),
        ("src = 'x'", "src: no such option"),
        ("config = 'x'", "config: no such option"),
        ("[refine]\nmin-faces = 'x'", "[refine] min-faces: 'x' is not a whole number"),
        ("min-faces = 2.5", "min-faces: '2.5' is not a whole number"),
        ("min-faces = true", "min-faces: True is neither a number nor a text"),
        ("min-faces = [3]", "min-faces: [3] is neither a number nor a text"),
        ("min-blur = nan", "min-blur: 'nan' is not a number"),
        ("tiles = 1", "tiles: 1 is neither true nor false"),
        ("include = [1979-05-27]", "is neither a number nor a text"),
        ("link = 'hrd'", "link: 'hrd' is no choice, did you mean hard?"),
        ("path-map = 'x'", "path-map: 'x' is not LOCAL=REMOTE"),
        ("x = ", "is no TOML: "),
    ],
)
def test_wrong_settings_are_one_line_with_file_and_key(run, settings, text, said):
    path = settings(text)
    code, out, err = run("run", "src", "out", "--config", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err and str(path) in err


def test_a_settings_file_that_is_no_text_or_not_there_is_refused(run, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("binary", "nowhere", ""):
        code, _, err = run("status", "x", "--config", tmp_path / name)
        assert code == 2 and err.count("\n") == 1 and str(tmp_path / name) in err


def test_the_environment_names_the_settings_file(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("SORT_FACES_CONFIG", str(settings("min-faces = 3")))
    assert parsed("refine", "lib.npz", "out").min_faces == 3
    other = tmp_path / "other.toml"
    other.write_text("min-faces = 4")
    assert parsed("refine", "lib.npz", "out", "--config", other).min_faces == 4
    monkeypatch.setenv("SORT_FACES_CONFIG", "")
    assert parsed("refine", "lib.npz", "out").min_faces == 15


def test_status_and_the_log_show_the_settings(run, settings, tmp_path):
    library = Library(tmp_path, people=2, photos=3)
    path = settings("[refine]\nmin-faces = 4\n")
    status = run("status", library.path, "--config", path)[1]
    assert str(path) in status and "refine.min-faces 4" in status
    run("cluster", library.path, library.out, "--config", path)
    [log] = Path(os.environ["SORT_FACES_LOGS"]).glob("cluster-*.log")
    first = log.read_text(encoding="utf-8").splitlines()[0]
    assert str(path) in first and "refine.min-faces 4" in first


# --- another Python ---------------------------------------------------------


def test_a_python_without_the_packages_is_told_by_name():
    bare = subprocess.run(
        [sys.executable, "-S", str(SCRIPT), "--help"], capture_output=True, text=True
    )
    assert (bare.returncode, bare.stdout, bare.stderr.count("\n")) == (2, "", 1)
    assert f"in {sys.executable}; " in bare.stderr and "Traceback" not in bare.stderr


def test_the_python_beside_the_script_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sf, "__file__", str(tmp_path / "sort_faces.py"))
    error = ModuleNotFoundError("No module named 'av'")
    assert "-m pip install -r" in sf.package_hint(error)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    hint = sf.package_hint(error)
    assert hint == (
        f"No module named 'av' in {sys.executable}; run {python} {tmp_path / 'sort_faces.py'}"
    )
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert "-m pip install -r" in sf.package_hint(error)  # it is this one that lacks it


@pytest.mark.parametrize(
    ("argv", "missing"),
    [
        (("demo", "OUT"), "demo_library"),
        (("doctor",), "doctor"),
        (("embed", "SRC", "OUT/lib.npz", "--model", "dlib"), "kinds"),
    ],
    ids=["demo", "doctor", "offline engine"],
)
def test_the_script_alone_says_in_one_line_what_it_misses(
    run, monkeypatch, tmp_path, argv, missing
):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.jpg").touch()
    monkeypatch.setattr(sf, "WORK_FOLDER", tmp_path / "work")
    places = {"SRC": tmp_path / "src", "OUT": tmp_path / "out", "OUT/lib.npz": tmp_path / "lib.npz"}
    code, _, err = run(*(places.get(word, word) for word in argv), "-q")
    assert code == 2 and err.count("\n") == 1
    assert f"{missing}.py: not there; keep the folder work/ beside sort_faces.py" in err
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob("lib*"))


# --- progress ---------------------------------------------------------------


def test_progress_in_a_log_says_what_how_many_and_how_fast(monkeypatch, caplog):
    monkeypatch.setattr(sf, "LOG_INTERVAL", 0.0)
    monkeypatch.setattr(sf.log, "propagate", True)
    sf.log.setLevel("INFO")
    assert list(sf.progress(range(3), 3, "looking", "photo")) == [0, 1, 2]
    last = caplog.messages[-1]
    assert last.startswith("looking: 3/3, ") and "photo/s, " in last and "left" in last


def test_progress_of_slow_things_is_told_per_item(monkeypatch, caplog):
    monkeypatch.setattr(sf, "LOG_INTERVAL", 0.0)
    monkeypatch.setattr(sf.log, "propagate", True)
    sf.log.setLevel("INFO")
    for _ in sf.progress(range(1), 1, "looking", "photo"):
        time.sleep(1.05)
    assert "s/photo, " in caplog.messages[-1]


def test_quiet_progress_says_nothing(monkeypatch, caplog):
    monkeypatch.setattr(sf, "LOG_INTERVAL", 0.0)
    sf.log.setLevel("WARNING")
    assert list(sf.progress(range(3), 3, "looking")) == [0, 1, 2]
    assert caplog.messages == []


def test_a_numpy_that_does_not_load_is_one_line(tmp_path):
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").write_text('raise ImportError("libopenblas is gone")')
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "status", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sort_faces status: libopenblas is gone in ")
    assert done.stderr.count("\n") == 1 and "pip install -r" in done.stderr
