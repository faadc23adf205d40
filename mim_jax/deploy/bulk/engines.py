"""Engines that score the parts: this process, or Ray actors on this machine or a cluster.

Both take the unfinished parts and yield each one when it is written. Ray actors are used directly, not
through Ray Data: all state for resuming is in the output folder, so this process can continue where Ray was
killed, and vice versa; and a finished run is recognized before Ray starts, whereas Ray Data deletes its
checkpoint at the end of a run, so the same command would write every row again.
"""

import dataclasses
import importlib.util
import logging
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from joblib import cpu_count

from mim_jax.deploy.bulk.inputs import Item
from mim_jax.deploy.bulk.worker import AT_ONCE, Done, Job, Worker, in_order

Parts = Iterator[tuple[int, list[Item]]]
CPUS = 4  # per actor: threads share the detector's memory, processes do not share Python's lock
LIMIT = 5  # worker deaths on one part before it is given up
PATIENCE = 60.0  # seconds before reporting that no machine has room
LOOK = 10.0  # seconds between checks of the cluster's size


def score_here(job: Job, parts: Parts) -> Iterator[Done]:
    """Score parts in this process."""
    worker = Worker(job)
    worker.load()
    with ThreadPoolExecutor(AT_ONCE, "part") as pool:
        try:
            yield from in_order(pool, lambda part: worker.score(*part), parts, ahead=AT_ONCE - 1)
        finally:
            worker.pool.shutdown(wait=False, cancel_futures=True)


def has_ray() -> bool:
    """Whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


def score_on_ray(
    job: Job,
    parts: Parts,
    *,
    address: str,
    actors: int | None,
    gpus: bool | None,
    tell: Callable[[str], None],
) -> Iterator[Done]:
    """Score parts on Ray, where `job.threads` is replaced by the number of CPUs that an actor gets.

    Args:
      address: address of a cluster; "" = start Ray on this machine.
      actors: number of actors; None = as many as the cluster has room for, also as it grows.
      gpus: whether each actor uses a GPU; None = yes if the cluster has one now.
      tell: called with messages for the user, one sentence each.

    Raises:
      ValueError: no such cluster, or a worker cannot load the detector.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        # Binds Ray's ports to loopback, as on Windows and macOS; else they are open on every interface.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        memory = 2**28 + sum(map(len, job.files.values()))
        options |= {"num_cpus": cpu_count(), "include_dashboard": False, "object_store_memory": memory}
    import ray

    asked_to_stop = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "local", **options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, asked_to_stop)  # Ray's handler would end this process with a dump
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"no Ray at {address or 'this machine'} ({' '.join(str(error).split())}): check the address, and "
            "that RAY_AUTH_MODE and the token are the same on both sides"
        ) from error
    try:
        yield from _Crew(ray, job, actors, gpus, tell).score(parts)
    finally:
        ray.shutdown()


class _Crew:
    """Ray actors, and the parts assigned to them."""

    def __init__(
        self, ray: Any, job: Job, actors: int | None, gpus: bool | None, tell: Callable[[str], None]
    ):
        self.ray, self.tell, self.wanted = ray, tell, actors
        total = ray.cluster_resources()
        cpus, there = total.get("CPU", 0), total.get("GPU", 0)
        self.gpus = there >= 1 if gpus is None else gpus
        # The size of a cluster's machines is unknown while it has none.
        alive = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        threads = int(cpus // there) if self.gpus and there else min(CPUS, max(alive, default=0) or CPUS)
        job = dataclasses.replace(job, threads=max(1, threads))
        self.kind = ray.remote(Worker).options(
            num_cpus=job.threads, num_gpus=1 if self.gpus else 0, max_concurrency=AT_ONCE
        )
        self.threads, self.job = job.threads, ray.put(job)
        self.expected = job.output.about["versions"]
        self.loading: dict[Future[Any], Any] = {}  # future of load() -> its actor
        self.crew: list[Any] = []
        # Future of score() -> its actor, the part and its inputs.
        self.tasks: dict[Future[Any], tuple[Any, int, list[Item]]] = {}
        self.deaths: Counter[int | None] = Counter()  # by part; None = while loading

    def score(self, parts: Parts) -> Iterator[Done]:
        again, given_up = deque[tuple[int, list[Item]]](), list[int]()
        looked, idle_since = 0.0, time.monotonic()
        while True:
            now = time.monotonic()
            if now - looked > LOOK or not (self.crew or self.loading):
                self._hire()
                looked = now
            if self.crew:
                idle_since = now
            elif now - idle_since > PATIENCE:
                self.tell(
                    f"waiting for a machine with {self.threads} free CPUs{' and a GPU' if self.gpus else ''}"
                )
                idle_since = now
            exhausted = not self._hand_out(parts, again)
            if exhausted and not self.tasks:
                break
            # Not by ray.wait, which does not distinguish SIGTERM from Ctrl-C.
            done, _ = wait([*self.loading, *self.tasks], timeout=1.0, return_when=FIRST_COMPLETED)
            for future in done:
                if future in self.loading:
                    self._welcome(future)
                    continue
                actor, part, items = self.tasks.pop(future)
                found = self._result(future)
                if found is not None:
                    yield found
                    continue
                self.crew = [each for each in self.crew if each is not actor]
                self._hire()
                self.deaths[part] += 1
                if self.deaths[part] < LIMIT:
                    again.append((part, items))
                else:
                    given_up.append(part)
        if given_up:
            raise ValueError(
                f"the workers died {LIMIT} times on each of the parts {', '.join(map(str, given_up[:9]))}, "
                "of too little memory or of an image that crashes a decoder; the other parts are written: "
                "run the same command again with more memory, or find and remove the image"
            )

    def _hire(self) -> None:
        """Start actors up to the wanted number, or as many as the cluster has room for."""
        total = self.ray.cluster_resources()
        room = int(total.get("GPU", 0)) if self.gpus else int(total.get("CPU", 0) // self.threads)
        for _ in range(max(1, self.wanted or room) - len(self.crew) - len(self.loading)):
            actor = self.kind.remote(self.job)
            self.loading[actor.load.remote().future()] = actor

    def _welcome(self, future: Future[Any]) -> None:
        actor = self.loading.pop(future)
        found = self._result(future)
        if found is None:
            self.deaths[None] += 1
            if self.deaths[None] >= LIMIT:
                raise ValueError("the workers die while loading the detector: see Ray's logs for the reason")
            return
        if found != self.expected:
            differ = [f"{name} {found[name]}" for name in found if found[name] != self.expected[name]]
            raise ValueError(
                f"a node has {', '.join(differ)}, but the run has {self.expected}: install the same versions"
            )
        self.deaths[None] = 0
        self.crew.append(actor)

    def _hand_out(self, parts: Parts, again: deque[tuple[int, list[Item]]]) -> bool:
        """Assign parts until every actor has `AT_ONCE`; return whether there were enough parts."""
        load = Counter(id(actor) for actor, _, _ in self.tasks.values())
        for depth in range(AT_ONCE):  # one each first
            for actor in self.crew:
                if load[id(actor)] <= depth:
                    following = again.popleft() if again else next(parts, None)
                    if following is None:
                        return False
                    self.tasks[actor.score.remote(*following).future()] = (actor, *following)
                    load[id(actor)] += 1
        return True

    def _result(self, future: Future[Any]) -> Any:
        """Return a task's result, or None if its worker died; raise the task's own error."""
        try:
            return future.result()
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ValueError | OSError):
                raise error.cause from None
            raise
        except self.ray.exceptions.RayError:
            return None
