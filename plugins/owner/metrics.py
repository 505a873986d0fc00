"""Serves figures for Prometheus, and health checks, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import platform as system
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from bossbot_plugins._figures import counter, gauge
from bossbot_plugins._health import (
    Page,
    ask_from_outside,
    check_life,
    check_readiness,
    split_address,
)
from bossbot_plugins._memory import memory
from loguru import logger
from pydantic import Field, field_validator

import bossbot
from bossbot import (
    TERMINAL_STATUSES,
    App,
    Cause,
    Job,
    JobFailed,
    MediaFile,
    Message,
    Plugin,
    PluginConfig,
    QueueFull,
    Refused,
    Status,
    hookimpl,
    in_thread,
    now,
)

MAX_SERIES = 800  # of all together; plugins share what ours leave
MAX_PLATFORMS = 10  # with figures of their own; the rest are "other"
MAX_FAILING = 40  # hooks of plugins
MAX_ENDED = 1000  # jobs that are remembered, so that none counts twice
TEXT = "text/plain; version=0.0.4; charset=utf-8"
PHASES = {
    Status.QUEUED: "wait",
    Status.DOWNLOADING: "download",
    Status.PROCESSING: "process",
    Status.UPLOADING: "upload",
}
SOURCES = ("message", "interaction", "automatic")
RESULTS = ("queued", "joined", "answered", "refused")
# The upper ends of the histograms, in seconds.
JOB_S = (1, 3, 10, 30, 100, 300, 1000)
PHASE_S = (0.1, 0.3, 1, 3, 10, 30, 100, 300)
HOOK_S = (0.001, 0.01, 0.1, 1, 10)
LAG_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5)
LOOK_S = 1.0  # between two looks at the loop, and at plugins that were loaded again
LEVELS = ("INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")


class Config(PluginConfig):
    """[plugins.metrics] in config.toml."""

    listen: str = Field(
        "", description='address of /metrics and /healthz: "127.0.0.1:9642"; "": off'
    )

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value:
            split_address(value)
        return value


_meter: Meter | None = None  # while it is on


@hookimpl(tryfirst=True)  # before another one does anything that counts
async def run(app: App, config: Config) -> None:
    if not config.listen:
        return
    if not importlib.util.find_spec("prometheus_client"):
        remedy = f"{sys.executable} -m pip install -r requirements.txt"
        logger.error("prometheus_client is missing, so metrics are off. {}", remedy)
        return
    from bossbot_plugins._port import Port  # and its server: it may be off

    loop = asyncio.get_running_loop()
    meter = Meter(app)
    pages: dict[str, Callable[[], Page]] = {
        "/metrics": lambda: Page(meter.text(), TEXT),
        "/healthz": lambda: ask_from_outside(loop, check_life(app)),
        "/readyz": lambda: ask_from_outside(loop, check_readiness(app)),
    }
    with counting(app, meter):
        try:
            port = await in_thread(partial(Port, *split_address(config.listen), pages))
        except (OSError, UnicodeError) as error:  # no host has such a name
            logger.error(
                "the bot cannot listen on {}: {}. Set another listen in [plugins.metrics].",
                config.listen,
                error,
            )
            return
        logger.info("metrics and health are at {}", port.url)
        try:
            await asyncio.gather(meter.watch(), meter.find_open(), meter.find_engines())
        finally:
            await in_thread(port.close)


@contextlib.contextmanager
def counting(app: App, meter: Meter) -> Any:
    """While it lasts, a meter counts what goes on."""
    global _meter
    log = logger.add(meter.logged, level="INFO", format="")
    _meter, app.plugins.on_call = meter, meter.called
    try:
        yield
    finally:
        _meter, app.plugins.on_call = None, None
        logger.remove(log)


@hookimpl
async def job_changed(job: Job, previous: Status | None) -> None:
    if _meter:
        _meter.changed(job, previous)


@hookimpl
async def job_refused(job: Job) -> None:
    if _meter:
        _meter.refused(job, sys.exc_info()[1])


@hookimpl(tryfirst=True)  # the files as they came
async def process_files(job: Job, files: list[MediaFile]) -> None:
    if _meter:
        _meter.fetched(job, files)


class Meter:
    """Counts for Prometheus. No label holds an id, a link, or anything else from
    outside."""

    def __init__(self, app: App) -> None:
        import prometheus_client as prometheus

        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.app = app
        # All names; each plugin also has its own registry.
        self.names = prometheus.CollectorRegistry(auto_describe=True)
        self.shares: dict[str, tuple[Plugin, Any]] = {}
        self._silent: set[str] = set()  # whose figures are left out
        self._open: dict[str, tuple[Status, float, float]] = {}  # see changed()
        self._ended = OrderedDict[str, None]()
        self._fetched: dict[str, set[str]] = {}  # names of files, by job
        self._engines: dict[tuple[str, str], float] = {}
        self._levels = dict.fromkeys(LEVELS, 0)
        self._memory: tuple[float, dict[str, float]] = (0, {})
        plugins = sorted(app.plugins.all.values(), key=lambda one: one.kind == "own")
        known = [platform.name for plugin in plugins for platform in plugin.platforms]
        self._platforms = set(known[:MAX_PLATFORMS])
        self.registry = registries()(self.names)
        self._add_ours(prometheus)
        self.meet_plugins()

    def _add_ours(self, prometheus: Any) -> None:
        def count(name: str, text: str, *labels: str) -> Any:
            return prometheus.Counter(
                f"bossbot_{name}", text, labels, registry=self.registry
            )

        def histogram(name: str, text: str, buckets: Any, *labels: str) -> Any:
            return prometheus.Histogram(
                f"bossbot_{name}", text, labels, buckets=buckets, registry=self.registry
            )

        self.jobs = count("jobs_total", "Jobs that have ended", "platform", "status")
        self.failures = count(
            "job_failures_total", "Jobs that failed", "platform", "cause"
        )
        self.retries = count("job_retries_total", "Repeated attempts", "platform")
        self.links = count("links_total", "Links that came in", "source", "result")
        self.refusals = count(
            "refusals_total", "Refusals by the checks of a plugin", "reason"
        )
        self.downloaded = count(
            "downloaded_bytes_total", "Files that were downloaded", "platform"
        )
        # From 0 on: else Prometheus sees no increase at the first one.
        for platform in (*self._platforms, "other"):
            self.retries.labels(platform)
            self.downloaded.labels(platform)
            for status in TERMINAL_STATUSES:
                self.jobs.labels(platform, str(status))
            for cause in Cause:
                self.failures.labels(platform, str(cause))
        for labels in itertools.product(SOURCES, RESULTS):
            self.links.labels(*labels)
        self.job_s = histogram(
            "job_duration_seconds", "From the request to its end", JOB_S, "platform"
        )
        self.phase_s = histogram(
            "job_phase_duration_seconds", "Time in a status", PHASE_S, "phase"
        )
        self.hook_s = histogram(
            "hook_duration_seconds", "Calls of a plugin's hook", HOOK_S, "hook"
        )
        self.lag_s = histogram(
            "event_loop_lag_seconds", "Delay of the event loop", LAG_S
        )
        plugins = self.app.plugins
        build = (bossbot.__version__, system.python_version())
        for figures in (
            gauge(
                "bossbot_queue_jobs", "Unfinished jobs", ("status",), self._by_status
            ),
            gauge(
                "bossbot_queue_oldest_age_seconds",
                "Age of the oldest waiting job",
                (),
                self._oldest_age_s,
            ),
            gauge("bossbot_memory_bytes", "Memory", ("process",), self._memory_bytes),
            gauge("bossbot_plugins", "Plugins", ("state",), self._plugins),
            counter(
                "bossbot_plugin_failures",
                "Hooks that failed",
                ("plugin", "hook"),
                lambda: dict(plugins.failed_ever.most_common(MAX_FAILING)),
            ),
            gauge(
                "bossbot_engine_info",
                "1 for the version that runs",
                ("engine", "version"),
                lambda: dict.fromkeys(self._engines, 1),
            ),
            gauge(
                "bossbot_engine_age_seconds",
                "Age of an engine",
                ("engine",),
                lambda: {e: age for (e, _), age in self._engines.items() if age >= 0},
            ),
            counter(
                "bossbot_log_messages",
                "Lines of the log",
                ("level",),
                lambda: self._levels,
            ),
            gauge(
                "bossbot_build_info",
                "1 for the version that runs",
                ("version", "python"),
                lambda: {build: 1},
            ),
        ):
            self.registry.register(figures)

    # What goes on

    def platform(self, job: Job) -> str:
        return job.platform if job.platform in self._platforms else "other"

    async def find_open(self) -> None:
        """Read the jobs from before the start. A process that gets no changes has
        none."""
        if not self.app.has_gateway:
            return
        with logger.catch(message="jobs from before the start are not in the metrics"):
            async for job in self.app.queue.untold():
                if job.status not in TERMINAL_STATUSES and job.id not in self._ended:
                    known = (job.status, 0.0, job.created_at)
                    self._open.setdefault(job.id, known)

    def changed(self, job: Job, previous: Status | None) -> None:
        """Count a change, and how long the job was in its last status."""
        if job.id in self._ended:  # announced twice
            return
        platform = self.platform(job)
        _, since, _ = self._open.pop(job.id, (None, 0.0, 0.0))
        if previous is None and job.status is Status.QUEUED:
            result = "joined" if job.joins else "queued"
            self.links.labels(source_of(job), result).inc()
            since = 0.0
        elif previous in PHASES and since and job.status is not Status.CANCELLED:
            self.phase_s.labels(PHASES[previous]).observe(now() - since)
        if job.status not in TERMINAL_STATUSES:
            if job.status is Status.QUEUED and previous in PHASES:
                self.retries.labels(platform).inc()
            self._open[job.id] = (job.status, now(), job.created_at)
            return
        self._fetched.pop(job.id, None)
        self._ended[job.id] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        self.jobs.labels(platform, str(job.status)).inc()
        if job.status is Status.FAILED and job.cause:
            self.failures.labels(platform, str(job.cause)).inc()
        if job.status is not Status.CANCELLED:
            self.job_s.labels(platform).observe(job.finished_at - job.created_at)

    def fetched(self, job: Job, files: list[MediaFile]) -> None:
        """Count downloaded files, each once: some come again, with the rest."""
        if job.options.get("kept"):  # of an earlier job, which downloaded them
            return
        known = self._fetched.setdefault(job.id, set())
        new = [file for file in files if file.name not in known]
        known.update(file.name for file in new)
        size = sum(file.size for file in new)
        self.downloaded.labels(self.platform(job)).inc(size)

    def refused(self, job: Job, why: BaseException | None) -> None:
        self.links.labels(source_of(job), "refused").inc()
        if isinstance(why, QueueFull):
            self.refusals.labels("queue_full").inc()

    def called(
        self, stem: str, hook: str, took_s: float, answer: Any, about: Any
    ) -> None:
        """See ``Plugins.on_call``."""
        self.hook_s.labels(hook).observe(took_s)
        if about is None or getattr(about, "dry", False):
            return
        if isinstance(answer, Refused):
            self.refusals.labels(stem).inc()
        elif hook == "answer_job" and isinstance(answer, (str, Message)):
            self.links.labels(source_of(about), "answered").inc()

    def logged(self, message: Any) -> None:
        level = message.record["level"].name
        if level in self._levels:
            self._levels[level] += 1

    async def watch(self) -> None:
        """Measure the delay of the loop, and look for new plugins."""
        clock = asyncio.get_running_loop().time
        while True:
            due_s = clock() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self.lag_s.observe(max(clock() - due_s, 0))
            self.meet_plugins()

    async def find_engines(self) -> None:
        with contextlib.suppress(JobFailed, OSError):  # a TimeoutError is one
            for name, (version, days) in (await self.app.runner.versions()).items():
                age_s = -1 if days is None else days * 86400
                self._engines[name, version[:50]] = age_s

    # Other plugins' figures

    def meet_plugins(self) -> None:
        """Have plugins that are new or were loaded again add their figures, and drop
        those of plugins that are gone."""
        plugins = self.app.plugins
        for stem, (known, registry) in [*self.shares.items()]:
            if plugins.all.get(stem) is not known:
                drop(registry)
                del self.shares[stem]
                self._silent.discard(stem)
        for impl in plugins.impls("register_metrics"):
            plugin = plugins.all[impl.plugin_name]
            if plugin.stem in self.shares:
                continue
            registry = registries()(self.names)
            self.shares[plugin.stem] = (plugin, registry)
            try:
                plugins.invoke(impl, plugin, registry=registry)
            except (Exception, SystemExit) as error:  # the boundary of a plugin
                drop(registry)
                del self.shares[plugin.stem]
                plugins.switch_off(plugin.stem, error)

    def text(self) -> bytes:
        """All figures. Called in a thread."""
        from prometheus_client import generate_latest

        whole = generate_latest(self.registry)
        left = MAX_SERIES - series_in(whole)
        shares = [*self.shares.items()]
        shares.sort(key=lambda share: (share[1][0].kind == "own", share[0]))
        for stem, (_, registry) in shares:
            try:
                some = generate_latest(registry)
                if series_in(some) > left:
                    raise ValueError(f"more than {MAX_SERIES} series in all")
            except Exception as error:  # the boundary of a plugin
                if stem not in self._silent:
                    self._silent.add(stem)
                    logger.warning("figures of {} are left out: {}", stem, error)
            else:
                whole, left = whole + some, left - series_in(some)
        return whole

    # What is read when somebody asks

    def _by_status(self) -> Mapping[str, float]:
        counts = {str(status): 0 for status in PHASES}
        for status, _, _ in [*self._open.values()]:
            counts[status] += 1
        return counts

    def _oldest_age_s(self) -> float:
        jobs = [*self._open.values()]
        waiting = [at for status, _, at in jobs if status is Status.QUEUED]
        return max(now() - min(waiting), 0) if waiting else 0

    def _plugins(self) -> Mapping[str, float]:
        unwanted = self.app.settings.disabled_plugins
        counts = {"on": 0, "off": 0, "disabled": 0}
        for plugin in [*self.app.plugins.all.values()]:
            off = "disabled" if plugin.stem in unwanted else "off"
            counts[off if plugin.off else "on"] += 1
        return counts

    def _memory_bytes(self) -> Mapping[str, float]:
        at, known = self._memory
        if time.monotonic() - at > 10 or not known:
            self._memory = (time.monotonic(), known := memory())
        return known


@cache
def registries() -> Any:
    """The class of a registry whose names are free in all others, or it raises
    ValueError."""
    from prometheus_client import CollectorRegistry

    class Share(CollectorRegistry):
        def __init__(self, names: CollectorRegistry) -> None:
            super().__init__()
            self.names, self.own = names, list[Any]()

        def register(self, collector: Any) -> None:
            self.names.register(collector)
            self.own.append(collector)
            super().register(collector)

        def unregister(self, collector: Any) -> None:
            self.names.unregister(collector)
            self.own.remove(collector)
            super().unregister(collector)

    return Share


def drop(registry: Any) -> None:
    for collector in [*registry.own]:
        registry.unregister(collector)


def source_of(job: Job) -> str:
    """The source of a link: no command, a message, or a slash command."""
    if job.options.get("auto"):
        return "automatic"
    return "message" if job.message_id else "interaction"


def series_in(text: bytes) -> int:
    return sum(bool(line) and line[:1] != b"#" for line in text.split(b"\n"))
