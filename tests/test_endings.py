"""How commands end whatever happens: bugs, signals, odd locks, kills that came too late."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SCRIPT, sf
from material import Library, ok, refused

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and links")


# --- bugs -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["cluster", "status"])
def test_a_bug_is_one_line_with_its_traceback_in_the_log(run, tmp_path, monkeypatch, command):
    library = Library(tmp_path, people=2, photos=3)

    def broken(*_args: object) -> None:
        raise TypeError("planted\nover two lines")

    monkeypatch.setattr(sf, "read_npz", broken)
    argv = (command, library.path, library.out) if command == "cluster" else (command, library.path)
    code, out, err = run(*argv)
    assert (code, out, err.count("\n")) == (70, "", 1)
    assert "a bug of ours (TypeError at test_endings.py:" in err and "planted over two" in err
    (log,) = re.findall(r"the traceback is in (\S+);", err)
    text = Path(log).read_text()
    assert "Traceback (most recent call last)" in text and "in load_cache" in text
    assert not library.out.exists()


def test_a_bug_without_a_log_file_is_one_line_all_the_same(run, tmp_path, monkeypatch):
    library = Library(tmp_path, people=2, photos=3)
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("SORT_FACES_LOGS", str(tmp_path / "no folder"))
    monkeypatch.setattr(sf, "read_npz", lambda _: 1 / 0)
    code, _, err = run("cluster", library.path, library.out, "-q")
    lines = [line for line in err.splitlines() if not line.startswith("warning: no log file")]
    assert code == 70 and len(lines) == 1 and "there is no log file" in lines[0]


# --- signals ----------------------------------------------------------------


def started(*argv: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


LISTENING = SCRIPT.read_text().split("signal.signal(", 1)[0].count("\n")  # lines before


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_at_any_moment_is_one_line_and_its_code(tmp_path, number, code):
    """From our first line on; before it Python reads the file, and answers by itself."""
    library = Library(tmp_path, people=2, photos=3)
    codes = []
    begun = time.monotonic()
    assert started("cluster", library.path, tmp_path / "out").wait(60) == 0
    whole = time.monotonic() - begun
    for moment in range(24):
        process = started("cluster", library.path, tmp_path / "out", "--json")
        time.sleep(whole * moment / 24)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        codes.append(process.returncode)
        places = [int(line) for line in re.findall(r'sort_faces.py", line (\d+)', err)]
        if process.returncode in (0, 1, -number) and max(places, default=0) < LISTENING:
            continue  # it was done, or had not begun
        assert process.returncode == code, err
        lines = [line for line in err.splitlines() if line.startswith("sort_faces")]
        assert len(lines) == 1 and "interrupted" in lines[0] and "Traceback" not in err, err
    assert code in codes, codes


# --- locks ------------------------------------------------------------------


@posix
@pytest.mark.parametrize("kind", ["folder", "link", "dangling", "loop", "pipe"])
@pytest.mark.parametrize("name", [".sort_faces.lock", ".sort_faces.lock.holder"])
def test_what_lies_in_the_place_of_a_lock_is_moved_aside(run, tmp_path, kind, name):
    library = Library(tmp_path, people=2, photos=3)
    ok(run, "cluster", library.path, library.out)
    lock, letter = library.out / name, tmp_path / "letter.txt"
    letter.write_text("mine")
    lock.unlink(missing_ok=True)
    if kind == "folder":
        lock.mkdir()
        (lock / "x").write_text("mine")
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to({"link": letter, "dangling": tmp_path / "none", "loop": lock}[kind])
    ok(run, "cluster", library.path, library.out, warned="is no file of a lock")
    assert letter.read_text() == "mine" and not (tmp_path / "none").exists()
    assert os.path.lexists(library.out / f"{name}.aside")
    ok(run, "cluster", library.path, library.out)


# --- what kills leave -------------------------------------------------------


def test_what_a_killed_dedup_left_is_gone_after_the_next(run, tmp_path):
    library = Library(tmp_path, people=2, photos=3)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    name = library.path.with_suffix(".duplicates.json").name
    left = tmp_path / f"{sf.PART_PREFIX}{ended.pid}-1-{name}"
    at_work = tmp_path / f"{sf.PART_PREFIX}{os.getppid()}-1-{name}"
    for part in (left, at_work):
        part.write_text("{")
    ok(run, "dedup", library.path)
    assert not left.exists() and at_work.exists()


# --- files of the kernel, folders without a number --------------------------


KERNEL = ("kmsg", "kcore", "self/mem", "version")


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="needs Linux's /proc")
def test_links_to_files_of_the_kernel_are_no_photos(run, tmp_path):
    """Reading /proc/kmsg waits for ever, /proc/kcore is terabytes."""
    library = tmp_path / "photos"
    library.mkdir()
    for name in filter(lambda name: Path("/proc", name).exists(), KERNEL):
        (library / f"{Path(name).name}.jpg").symlink_to(f"/proc/{name}")
    refused(run, "embed", library, tmp_path / "lib.npz", "--model", "dlib", word="no photos")


@posix
@pytest.mark.parametrize("numbered", [True, False])
def test_a_folder_is_skipped_aloud_and_only_if_it_came_before(
    tmp_path, caplog, monkeypatch, numbered
):
    """Some network disks give every folder the inode 0."""
    for name in ("a", "b", "b/c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    real = os.stat

    def without_number(path: str, **options: object) -> os.stat_result:
        facts = real(path, **options)
        whole = os.stat_result([facts[0], 0, *facts[2:]])
        return whole if stat.S_ISDIR(facts.st_mode) else facts

    if not numbered:
        monkeypatch.setattr(sf.os, "stat", without_number)
    caplog.set_level("INFO")
    report = sf.scan_photos([tmp_path])
    assert len(report.files) == 3
    assert [record.args for record in caplog.records] == [(str(tmp_path / "link"),)]


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_a_callback_whose_errors_are_dropped_is_not_lost(number, code):
    """Python drops what is raised in one, such as those of its import locks."""
    program = f"""if True:
        import os, weakref, sort_faces as sf
        class Thing: pass
        def main(listen):
            listen()
            thing = Thing()
            stop = lambda _: [os.kill(os.getpid(), {int(number)}), sum(range(9))]
            last = weakref.ref(thing, stop)
            del thing
            for _ in range(3000):
                sum(range(10000))
            return 0
        sf.main = main
        sf.run_as_program()"""
    where = {**os.environ, "PYTHONPATH": str(Path(sf.__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=where, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (code, "")


def test_a_line_of_ours_is_not_taken_for_one_of_a_library():
    """A thread that decodes begins to catch these at any moment: between stderr and its write."""
    program = """if True:
        import os, sys, sort_faces as sf
        def main(listen):
            write, said = sys.stderr.write, []
            with sf.companion("hush").hushed.descriptor(said.append):
                write("ours\\n")
                os.write(2, b"theirs\\n")
            return 0 if said == ["theirs"] else 1
        sf.main = main
        sf.run_as_program()"""
    where = {**os.environ, "PYTHONPATH": str(Path(sf.__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=where, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "ours\n")
