"""Work on a Dask cluster of two processes equals work here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from quality_models import save_sharpness_model
from test_kill import content
from test_worker import embed, make_photos, one_line

import sort_faces as sf

distributed = pytest.importorskip("distributed", reason="needs dask[distributed]")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and links")


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> tuple[Path, Path | str]:
    """(photos, model): 38 photos of people and two copies with a real pack, else made ones."""
    root = tmp_path_factory.mktemp("cluster") / "photos"
    people = sorted((SHARED / "data/people").glob("*/*.jp*g"))[::18][:38]
    if not people:
        make_photos(root, 8)
        shutil.copy(root / "0 ü/00: a.jpg", root / "copy.jpg")
        return root, "dlib"
    for at, photo in enumerate(people):
        for name in [photo.name, f"zz copy {at}.jpg"][: 2 if at < 2 else 1]:
            (root / f"p{at % 5}").mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, root / f"p{at % 5}" / name)
    return root, SHARED / "models" / "mini"


@pytest.fixture(scope="module")
def content_here(library, tmp_path_factory) -> dict:
    root, model = library
    cache = tmp_path_factory.mktemp("here") / "here.npz"
    assert sf.main(["embed", str(root), str(cache), "--model", str(model), "--threads", "2"]) == 0
    return content(cache)


@pytest.mark.parametrize("batch", [1, 3])
def test_cluster_equals_here(run, cluster, library, content_here, tmp_path, batch: int) -> None:
    root, model = library
    result = embed(run, root, tmp_path / "x.npz", "--model", model,
                   "--cluster", cluster.scheduler_address, "--batch", batch)  # fmt: skip
    assert result["copies"] > 0
    there = content(tmp_path / "x.npz")
    if batch > 1:  # the recogniser rounds a batch in another order
        there, content_here = (
            {k: v for k, v in c.items() if k == "facts"} for c in (there, content_here)
        )
    assert there == content_here


def test_other_paths_there(run, cluster, library, content_here, tmp_path) -> None:
    """Workers reach the photos by another path; by a wrong one they reach none."""
    root, model = library
    other = tmp_path / "seen from there"
    other.symlink_to(root)
    address = cluster.scheduler_address
    embed(run, root, tmp_path / "x.npz", "--model", model, "--cluster", address,
          "--path-map", f"{root}={other}")  # fmt: skip
    assert content(tmp_path / "x.npz") == content_here
    code, _, err = run("embed", root, tmp_path / "y.npz", "--model", model, "--cluster", address,
                       "--path-map", f"{root}=/nowhere")  # fmt: skip
    assert code == 1
    assert "No such file" in err
    embed(run, root, tmp_path / "y.npz", "--model", model, "--retry-errors")
    assert content(tmp_path / "y.npz") == content_here


def test_faces_are_scored_there_as_here(run, cluster, library, tmp_path) -> None:
    root, model = library
    sharp = save_sharpness_model(tmp_path / "sharp.onnx")
    embed(run, root, tmp_path / "here.npz", "--model", model)
    shutil.copy(tmp_path / "here.npz", tmp_path / "there.npz")
    for name, where in (("here", []), ("there", ["--cluster", cluster.scheduler_address])):
        cache = tmp_path / f"{name}.npz"
        code, _, err = run("enrich", cache, "--model", model, "--quality-model", sharp, *where)
        assert code == 0, err
    here, there = (sf.load_cache(tmp_path / f"{name}.npz") for name in ("here", "there"))
    assert np.isfinite(here.learned_quality).all()
    np.testing.assert_array_equal(here.learned_quality, there.learned_quality)
    assert here.meta.quality_model == there.meta.quality_model != ""


def test_the_offline_engine_travels_with_the_script(cluster) -> None:
    work = sf.WorkOptions(threads=1, cluster=cluster.scheduler_address)
    facts = sf.Crew(sf.EngineSpec(model="dlib"), work).facts
    assert (facts["meta"]["model"], facts["provider"]) == ("dlib", "cpu")


def test_path_map_ends_at_a_folder() -> None:
    work = sf.WorkOptions(threads=1, cluster="tcp://x:1", path_map=("/data", "/mnt/x"))
    crew, there = sf.Crew(sf.EngineSpec(), work), sf.companion("paths_there")
    assert there.path_there(crew, "/data/a.jpg") == "/mnt/x/a.jpg"
    assert there.path_there(crew, "/data2/a.jpg") == "/data2/a.jpg"


@pytest.mark.parametrize("text", ["", "x", "=x", "x="])
def test_path_map_that_is_none(run, tmp_path, text: str) -> None:
    code, _, err = run("embed", tmp_path, tmp_path / "x.npz", "--path-map", text)
    assert code == 2
    assert "is not LOCAL=REMOTE" in err


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:{port}", "nonsense://x:1", "127.0.0.1:{port}"]
)
def test_scheduler_out_of_reach(run, library, tmp_path, address: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(port=free.getsockname()[1])
    code, out, err = run("embed", library[0], tmp_path / "x.npz", "--model", library[1],
                         "--cluster", address)  # fmt: skip
    assert (code, out) == (2, "")
    one_line(err, f"--cluster {address}")
    assert not (tmp_path / "x.npz").exists()


def test_no_workers(run, library, tmp_path) -> None:
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, processes=True) as empty:
        code, out, err = run("embed", library[0], tmp_path / "x.npz", "--model", library[1],
                             "--cluster", empty.scheduler_address)  # fmt: skip
    assert (code, out) == (2, "")
    one_line(err, "no workers", "dask worker")


def test_worker_without_the_model(run, cluster, library, tmp_path) -> None:
    code, _, err = run("embed", library[0], tmp_path / "x.npz", "--model", tmp_path / "none",
                       "--cluster", cluster.scheduler_address)  # fmt: skip
    assert code == 2
    one_line(err, "a worker says", "none")


def on_growth(cache: Path, act) -> threading.Thread:
    """Call `act` once the journal of a cache holds a few photos."""

    def wait() -> None:
        limit = time.monotonic() + 90
        while time.monotonic() < limit:
            journal = sf.journal_path(cache)
            if journal.exists() and journal.read_bytes().count(b"\n") > 3:
                act()
                return
            time.sleep(0.005)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_killed_worker_loses_nothing(run, cluster, library, content_here, tmp_path) -> None:
    root, model = library
    killed = []

    def kill_one() -> None:
        killed.append(next(iter(cluster.workers.values())).pid)
        os.kill(killed[0], signal.SIGKILL)

    cache = tmp_path / "x.npz"
    killer = on_growth(cache, kill_one)
    embed(run, root, cache, "--model", model, "--cluster", cluster.scheduler_address)
    killer.join()
    assert len(killed) == 1
    assert content(cache) == content_here


def test_scheduler_that_goes_away(run, library, content_here, tmp_path) -> None:
    """One line; what was finished is kept and the next run, even without the cluster, goes on."""
    root, model = library
    cache = tmp_path / "x.npz"
    with distributed.LocalCluster(
        processes=True, n_workers=1, threads_per_worker=1, dashboard_address=None
    ) as doomed:
        killer = on_growth(cache, doomed.close)
        code, out, err = run("embed", root, cache, "--model", model,
                             "--cluster", doomed.scheduler_address)  # fmt: skip
        killer.join()
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    kept = sf.load_cache(cache).files
    assert kept >= 1
    assert embed(run, root, cache, "--model", model)["new"] < len(content_here) - 2
    assert content(cache) == content_here


@pytest.mark.parametrize("what", ["gone before more is sent", "left without workers"])
def test_a_cluster_that_ends_while_photos_are_sent_is_told(library, tmp_path, monkeypatch, what):
    """What waits for results then waits no more, whatever was on its way."""
    photos, model = sorted(library[0].rglob("*.jpg")), library[1]
    there, done = sf.companion("dask_cluster"), []
    monkeypatch.setattr(there, "STILL", 1.0)
    with distributed.LocalCluster(
        processes=True, n_workers=1, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        work = sf.WorkOptions(threads=1, cluster=cluster.scheduler_address, batch=1)
        crew = sf.Crew(sf.EngineSpec(model=str(model)), work)

        def items():
            for number in range(30):
                if number == there.AHEAD + 1 and what.startswith("gone"):
                    cluster.close()
                    time.sleep(12)  # until the client has given up
                elif number == there.AHEAD + 1:
                    cluster.scale(0)
                yield {"id": str(number), "sha256": None, "path": str(photos[0]),
                       "passes": asdict(sf.Passes()), "landmarks": False}  # fmt: skip

        with pytest.raises(sf.SortFacesError, match=r"is gone|no workers are left"):
            done += there.run_on_cluster("embed", items(), crew)
    assert 0 < len(done) < 30 and all("faces" in result for _, result in done)


def test_a_result_that_went_with_its_worker_is_not_waited_for_for_ever(monkeypatch):
    there = sf.companion("dask_cluster")
    monkeypatch.setattr(there, "STILL", 0.5)
    with distributed.LocalCluster(
        processes=True, n_workers=1, threads_per_worker=1, dashboard_address=None
    ) as cluster, distributed.Client(cluster, set_as_default=False) as client:  # fmt: skip
        future = client.submit(list, "ab")
        assert there.batch_results(future, 2, distributed) == ["a", "b"]
        lost = client.submit(list, "cd")
        while lost.status == "pending":
            time.sleep(0.05)
        cluster.scale(0)
        while client.nthreads():
            time.sleep(0.05)
        with pytest.raises(sf.SortFacesError, match="no workers are left"):
            there.batch_results(lost, 2, distributed)
