"""Work on a Dask cluster: the side that sends batches, and what a cluster's worker does with one.

Loaded by sort_faces.py for `--cluster ADDRESS`. The cluster's workers get sort_faces.py and the
companions in UPLOADED, all into one folder; model packs they must have.
"""

from __future__ import annotations

import functools
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sort_faces as sf

AHEAD = 4  # batches sent per worker thread before the first is back
RETRIES = 3  # times a batch is repeated when the worker that held it is lost
STILL = 60.0  # s without a result after which the scheduler is asked for its workers
HERE = Path(__file__).resolve().parent
TASKS = (  # what sort_faces itself loads for the tasks of a worker
    *("dask_cluster", "batches", "onnx_models", "insightface_engine", "nvjpeg", "dlib_engine"),
    *("clip_scorer", "clip_torch", "quality_model", "gpu_libraries", "hush", "demo_library"),
    *("kinds", "damaged_photos", "odd_tiffs", "raw_photos", "dates_in_photos", "capture_time"),
    *("sidecar_turn", "film_source"),
)
LOADED = re.compile(r'companion\("(\w+)"\)')


def with_what_they_load(names: Iterable[str]) -> list[str]:
    """Companions and all that these load, each once."""
    found, left = {}, [*names]
    while left:
        name = left.pop()
        if name not in found:
            text = (HERE / f"{name}.py").read_text("utf-8")
            found[name] = None
            left += LOADED.findall(text)
    return [*found]


COMPANIONS = with_what_they_load(TASKS)
UPLOADED = (Path(sf.__file__).resolve(), *(HERE / f"{name}.py" for name in COMPANIONS))


def run_on_cluster(
    task: str, items: Iterable[sf.Item], crew: sf.Crew
) -> Iterator[tuple[sf.Item, sf.Result]]:
    """Yield (item, result) as the workers of a dask.distributed scheduler finish them."""
    client, distributed = connect_cluster(crew.work.cluster)
    errand = by_value()
    paths = sf.companion("paths_there")
    spec = asdict(paths.spec_there(crew))
    with client:
        batches = sf.batched(items, crew.work.batch)
        pending = distributed.as_completed(loop=client.loop)
        held: dict[Any, list[sf.Item]] = {}

        def send_next() -> None:
            for some in itertools.islice(batches, 1):
                there = [paths.item_there(crew, item) for item in some]
                try:
                    future = client.submit(errand, task, spec, there, pure=False, retries=RETRIES)
                except Exception:  # of a kind that differs from version to version
                    if client.status in ("closing", "closed"):
                        raise scheduler_gone() from None
                    raise
                held[future] = some
                pending.add(future)

        for _ in range(AHEAD * max(1, sum(client.nthreads().values()))):
            send_next()
        for future in finished(pending, client):
            some = held.pop(future)
            send_next()
            yield from zip(some, batch_results(future, len(some), distributed), strict=True)


def finished(pending: Any, client: Any) -> Iterator[Any]:
    """The futures of an as_completed as they finish.

    Its own iterator waits forever for what was sent while the scheduler went away, and for workers
    that do not come back.
    """
    since = time.monotonic()
    while not pending.is_empty():
        if ready := pending.next_batch(block=False):
            yield from ready
            since = time.monotonic()
        elif client.status == "closed":
            raise scheduler_gone()
        elif time.monotonic() - since > STILL:
            check_workers(client)
            since = time.monotonic()
        else:
            time.sleep(0.02)


def check_workers(client: Any) -> None:
    """Raise SortFacesError where nobody is left to wait for."""
    if client.status == "closed":
        raise scheduler_gone()
    if not client.nthreads():
        raise sf.SortFacesError("--cluster: no workers are left; start one and run again")


def scheduler_gone() -> sf.SortFacesError:
    return sf.SortFacesError("--cluster: the scheduler is gone; start it and run again")


def batch_results(future: Any, size: int, distributed: Any) -> list[sf.Result]:
    """What a finished future brings; a batch that killed its workers is given up, not the run."""
    if future.cancelled():
        raise scheduler_gone()
    error = waited_for(future.exception, future.client, distributed)
    if error is None:
        return waited_for(future.result, future.client, distributed)
    if isinstance(error, distributed.scheduler.KilledWorker):
        return [{"failed": "killed the cluster's workers"}] * size
    raise sf.SortFacesError(f"--cluster: a worker says: {sf.one_line(error)}") from error


def waited_for(ask: Callable[..., Any], client: Any, distributed: Any) -> Any:
    """What a finished future answers.

    It lies with the worker that made it, and must be made again where that one is gone.
    """
    while True:
        try:
            return ask(timeout=STILL)
        except distributed.TimeoutError:
            check_workers(client)


def by_value() -> Callable[..., list[sf.Result]]:
    """cluster_work as it is sent: the scheduler unpickles it, too, and has no module of ours."""

    def errand(task: str, spec: dict[str, Any], items: list[sf.Item]) -> list[sf.Result]:
        import dask_cluster  # this file, as the worker got it

        return dask_cluster.cluster_work(task, spec, items)

    return errand


def connect_cluster(address: str) -> tuple[Any, Any]:
    """(client, the dask.distributed package)."""
    try:
        import distributed
    except ImportError:
        raise sf.SortFacesError(
            "--cluster: pip install 'dask[distributed]' here and there"
        ) from None
    try:
        client = distributed.Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise sf.SortFacesError(
            f"--cluster {address}: {sf.one_line(error)}; "
            "start `dask scheduler` there, or mend the address"
        ) from None
    if not client.nthreads():
        client.close()
        raise sf.SortFacesError(f"--cluster {address}: no workers; start `dask worker {address}`")
    for path in UPLOADED:  # to the workers, not to the scheduler, which so needs no numpy
        upload = distributed.diagnostics.plugin.UploadFile(str(path), load=path == UPLOADED[0])
        client.register_plugin(upload, name=path.name)
    return client, distributed


def cluster_work(task: str, spec: dict[str, Any], items: list[sf.Item]) -> list[sf.Result]:
    """Runs on a cluster's worker: one batch, with an engine loaded once per process."""
    sf.WORK_FOLDER = HERE  # there the other companions lie beside this file
    with LOADING:
        engine = loaded_engine(sf.EngineSpec(**spec))
    return sf.work_batch(task, engine, items)


LOADING = threading.Lock()


@functools.lru_cache(maxsize=2)
def loaded_engine(spec: sf.EngineSpec) -> sf.Models:
    return sf.load_models(spec, threads=2)  # a worker has threads of its own: one core per call
