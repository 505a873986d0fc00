"""The figures for Prometheus: true, few, without anything from outside, and free of cost
while they are off."""

import asyncio
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import (
    ROOT,
    SUPPORT_PLUGINS,
    AddPlugin,
    MakeApp,
    MakeSettings,
    make_job,
    our_plugins,
)
from discord_support import Stage, link, module, until
from loguru import logger
from prometheus_client.parser import text_string_to_metric_families
from test_health import ANY_PORT, address

import bossbot
from bossbot import Cause, MediaFile, Refused, Status

pytest_plugins = ("discord_fixtures",)

GAUGES = Path(__file__).parent / "plugins" / "gauges.py"

Figures = dict[
    tuple[str, ...], float
]  # name, and the values of the labels by their names


def parse(text: str) -> Figures:
    return {
        (sample.name.removeprefix("bossbot_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(logged: list[str]) -> str:
    url = await address(logged) + "/metrics"

    def read() -> str:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(read)


async def when(logged: list[str], is_so: Any) -> Figures:
    """The figures once they are so: they follow what members see."""
    async with asyncio.timeout(60):
        while not is_so(figures := parse(await scrape(logged))):
            await asyncio.sleep(0.02)
    return figures


def promtool(*arguments: str, text: str | None = None) -> None:
    """Have Prometheus' own tool check something, where it is installed."""
    if tool := shutil.which("promtool"):
        done = subprocess.run(
            [tool, *arguments], input=text, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


HOSTILE = (
    'bossbot_jobs_total{platform="x"} 1\n# @everyone https://evil.example/?token=1'
)


async def test_counters_are_what_discord_saw(stage: Stage, logged: list[str]) -> None:
    for name in ("metrics", "retention", "already_here"):
        stage.add_plugin(name)
    stage.copy_plugin(SUPPORT_PLUGINS / "rules.py", "veto")
    async with stage.bot(**ANY_PORT):
        stage.fake.fault("send", 429, retry_after_s=0.07)
        facts = stage.facts("title", title=HOSTILE, uploader=HOSTILE)
        once = link(facts, *stage.images(12))
        await stage.says(f"$dlt {once}")
        await stage.gets(12)
        await stage.says(f"$dlt {link('fail=gone')}")
        await stage.hears("Download failed")
        await stage.says(f"$dlt {link(stage.image(), 'no')}")
        await stage.hears("no")
        again = await stage.says(f"$dlt {once}")
        await stage.hears("", after=again.id)
        await stage.says(f"$dlt {link(stage.image(3), 'a')}")
        await stage.gets(13)
        await stage.fake.reconnect_op7()
        figures = await when(
            logged,
            lambda f: (
                f.get(("jobs_total", "other", "completed")) == 2
                and f.get(("discord_reconnects_total", "true")) == 1
                and f["discord_connected",]
            ),
        )

        def answered(f: Any) -> Counter[str]:
            """How many requests had an answer, by method."""
            by_method = Counter[str]()
            for (name, *labels), number in f.items():
                if name == "discord_requests_total":
                    by_method[labels[1]] += round(number)
            return by_method

        def seen() -> Counter[str]:
            return Counter(request.method for request in stage.fake.requests)

        figures = await when(logged, lambda f: answered(f) == seen())
        text = await scrape(logged)
    files = [file for message in stage.posted() for file in message.files]
    assert figures["files_total", "attached"] == len(files) == 13
    assert figures["uploaded_bytes_total",] == sum(len(f.data) for f in files)
    assert (
        figures["downloaded_bytes_total", "other"] == figures["uploaded_bytes_total",]
    )
    assert figures["jobs_total", "other", "failed"] == 1
    assert figures["job_failures_total", "gone", "other"] == 1
    assert figures["links_total", "queued", "message"] == 3
    assert figures["links_total", "refused", "message"] == 1
    assert figures["links_total", "answered", "message"] == 1
    assert figures["refusals_total", "veto"] == 1
    assert figures["queue_jobs", "queued"] == figures["queue_oldest_age_seconds",] == 0
    assert figures["child_process_exits_total", "done"] >= 2
    assert figures["child_process_exits_total", "failed"] == 1
    assert figures["discord_requests_total", "429", "POST"] == 1
    assert figures["discord_rate_limit_wait_seconds_total",] == pytest.approx(0.07)
    assert figures["job_duration_seconds_count", "other"] == 3
    for phase in ("wait", "download", "upload"):
        assert figures["job_phase_duration_seconds_count", phase] >= 2, phase
    assert figures["storage_free_bytes",] > 0
    if sys.platform == "linux":
        assert figures["memory_bytes", "bot"] > 10e6
    for secret in ("evil", "everyone", "example", str(stage.fake.guild.id)):
        assert secret not in text
    labels = " ".join(re.findall(r"\{.*\}", text))
    assert not re.search(r"\b[0-9a-f]{10}\b|\d{17}", labels), "an id"
    promtool("check", "metrics", text=text)


async def test_jobs_of_before_a_restart_count_once(
    stage: Stage, logged: list[str]
) -> None:
    stage.add_plugin("metrics")
    stage.copy_plugin(SUPPORT_PLUGINS / "holds.py")
    async with stage.bot():
        for number in (1, 2):
            asked = await stage.says(f"$dlt {link(stage.image(number))}")
            await stage.hears("Download started", after=asked.id)
    async with stage.bot(**ANY_PORT, max_queue_size=2) as bot:
        waiting = await when(logged, lambda f: f["queue_jobs", "queued"] == 2)
        assert 0 < waiting["queue_oldest_age_seconds",] < 60
        await stage.says(f"$dlt {link(stage.image(3))}")
        await when(logged, lambda f: f.get(("refusals_total", "queue_full")) == 1)
        jobs = await bot.app.queue.list(statuses=[Status.QUEUED])
        assert await bot.app.queue.cancel(jobs[0].id)
        figures = await when(logged, lambda f: f["queue_jobs", "queued"] == 1)
        assert figures["jobs_total", "other", "cancelled"] == 1
        meter = module("metrics")._meter
        meter.changed(await bot.app.queue.get(jobs[0].id), Status.QUEUED)  # once more
        assert parse(await scrape(logged))["jobs_total", "other", "cancelled"] == 1
        links = {key[1:] for key in figures if key[0] == "links_total" and figures[key]}
        assert links == {("refused", "message")}
        for has_gateway, known in ((True, 1), (False, 0)):  # a worker hears of no end
            bot.app.has_gateway = has_gateway
            meter = module("metrics").Meter(bot.app)
            await meter.find_open()
            assert len(meter._open) == known
        bot.app.has_gateway = True


async def test_each_thing_counts_once_and_only_what_it_is(
    make_app: MakeApp, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes long to bring about, told to the counters themselves."""
    app = make_app(make_settings(discord_token="x"))
    metrics = module("metrics")
    meter = metrics.Meter(app)

    def figures() -> dict[tuple[str, ...], float]:
        return parse(meter.text().decode())

    assert figures()["job_failures_total", "gone", "other"] == 0, "the first one counts"
    assert figures()["links_total", "joined", "automatic"] == 0
    assert figures()["downloaded_bytes_total", "other"] == 0
    runs = make_job(created_at=bossbot.now() - 500)
    meter.changed(runs, None)
    for status, previous in (("downloading", "queued"), ("queued", "downloading")):
        runs.status = Status(status)
        meter.changed(runs, Status(previous))
    runs.status = Status.DOWNLOADING
    meter.changed(runs, Status.QUEUED)
    assert figures()["job_retries_total", "other"] == 1
    meter.changed(make_job(joins=runs.id), None)
    assert figures()["links_total", "joined", "interaction"] == 1
    assert figures()["queue_oldest_age_seconds",] < 100, "it does not wait"
    one, two = (MediaFile(Path(name), 10, "", "") for name in ("a", "b"))
    meter.fetched(runs, [one])
    meter.fetched(runs, [one, two])
    meter.fetched(make_job(options={"kept": "0123456789"}), [one])
    assert figures()["downloaded_bytes_total", "other"] == 20
    for dry in (True, False):
        meter.called(
            "veto", "check_action", 0.1, Refused("no"), SimpleNamespace(dry=dry)
        )
    assert figures()["refusals_total", "veto"] == 1
    app.plugins.failed_ever.update((f"p{number}", "run") for number in range(100))
    failing = [key for key in figures() if key[0] == "plugin_failures_total"]
    assert len(failing) == metrics.MAX_FAILING
    with metrics.counting(app, meter):
        logger.warning("for the metrics")
    assert figures()["log_messages_total", "WARNING"] == 1

    async def versions() -> Any:
        return {"toy": ("1", 2), "new": ("1", None)}

    monkeypatch.setattr(app.runner, "versions", versions)
    await meter.find_engines()
    assert figures()["engine_info", "toy", "1"] == 1
    assert figures()["engine_age_seconds", "toy"] == 2 * 86400
    assert ("engine_age_seconds", "new") not in figures()
    monkeypatch.setattr(metrics, "LOOK_S", 0.001)
    watching = asyncio.create_task(meter.watch())
    async with asyncio.timeout(60):
        while not figures()["event_loop_lag_seconds_count",]:
            await asyncio.sleep(0.001)
    watching.cancel()
    for _ in range(metrics.MAX_ENDED + 5):
        meter.changed(make_job(status=Status.CANCELLED), Status.QUEUED)
    assert len(meter._ended) == metrics.MAX_ENDED


def test_memory_is_that_of_the_bot_and_all_below_it(
    make_app: MakeApp,
    make_settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_app(make_settings())
    if sys.platform != "linux":
        return
    memory = module("_memory")
    monkeypatch.setattr(memory, "PROC", tmp_path)
    parents = {os.getpid(): 1, 11: os.getpid(), 12: 11, 13: 12, 14: 1}
    for pid, parent in parents.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} 0")
        (tmp_path / str(pid) / "smaps_rollup").write_text("a\nPss:  1 kB\n")
    assert memory.memory() == {"bot": 1024, "fork_server": 1024, "children": 2048}


# Other plugins' figures


async def test_register_metrics_adds_figures_also_after_a_reload(
    stage: Stage, logged: list[str]
) -> None:
    stage.add_plugin("metrics")
    stage.copy_plugin(GAUGES, "mine")
    async with stage.bot(**ANY_PORT) as bot:
        module("metrics").LOOK_S = 0.02
        assert parse(await scrape(logged))["mine", "me"] == 7
        stage.copy_plugin(GAUGES, "mine", OF="another")
        assert not (await bot.app.reload("mine")).off
        figures = await when(logged, lambda f: ("mine", "another") in f)
        assert ("mine", "me") not in figures
        bot.app.plugins.switch_off("mine", "enough")
        figures = await when(logged, lambda f: ("mine", "another") not in f)
        assert figures["plugins", "off"] == 1


HARM = "takes", "half", "breaks", "floods", "waits"


class Turned(threading.Event):
    """Waited for by a figure, and set by the event loop, which must go on for that."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def wait(self, timeout: float | None = 30) -> bool:
        self.asked.set()
        return super().wait(timeout)


async def test_register_metrics_that_does_harm_harms_only_its_plugin(
    stage: Stage, logged: list[str]
) -> None:
    stage.add_plugin("metrics")
    for name in HARM:
        stage.copy_plugin(GAUGES, name)
    app_off = ("takes", "half")
    async with stage.bot(**ANY_PORT) as bot:
        plugins, turned = bot.app.plugins.all, Turned()
        bot.app.turned = turned  # type: ignore[attr-defined]
        await address(logged)
        assert {n for n in HARM if plugins[n].off} == set(app_off)
        assert "Duplicated" in plugins["takes"].off
        asking = asyncio.create_task(scrape(logged))
        await until(lambda: asyncio.sleep(0, turned.asked.is_set()))
        turned.set()  # which nobody could, if the loop waited for the figure
        await scrape(logged)
        figures = parse(await asking)
        assert figures["waits",] == 5 and figures["plugins", "off"] == 2
        assert not {"half_a", "breaks", "flood"} & {name for name, *_ in figures}
    for name, why in (("breaks", "division by zero"), ("floods", "more than 800")):
        said = [line for line in logged if f"figures of {name} are left out" in line]
        assert len(said) == 1 and why in said[0]


# How many there are


async def test_no_more_than_800_series_whatever_happens(
    make_app: MakeApp, make_settings: MakeSettings, add_plugin: AddPlugin
) -> None:
    """With every plugin of ours, a platform too many, and each of their figures."""
    add_plugin(SUPPORT_PLUGINS / "registers.py")
    settings = make_settings(
        discord_token="x",
        metrics__listen="127.0.0.1:0",
        registers__platforms=[f"s{number}" for number in range(12)],
    )
    app = make_app(settings)
    metrics = module("metrics")
    meter = metrics.Meter(app)
    platforms = [*app.plugins.registered("platforms"), "", "hostile"]
    assert len(platforms) > 15
    for platform in platforms:
        for cause in Cause:
            for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED):
                job = make_job(platform=platform, status=status, cause=cause)
                meter.changed(job, Status.UPLOADING)
        for previous in metrics.PHASES:
            job = make_job(platform=platform)
            meter.changed(job, None)
            job.status = Status.DOWNLOADING
            meter.changed(job, previous)
            job.status = Status.QUEUED
            meter.changed(job, Status.DOWNLOADING)
        meter.downloaded.labels(meter.platform(job)).inc()
        for options in ({"auto": True}, {}):
            for message_id in (0, 1):
                job.options, job.message_id = options, message_id
                meter.refused(job, None)
    for plugin in app.plugins.all.values():
        for hook in plugin.hooks:
            app.plugins.failed_ever[plugin.stem, hook] += 1
            if not hook.startswith(("register_", "run")):
                meter.called(plugin.stem, hook, 0.1, metrics.Refused("no"), job)
    client: Any = app.client
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        for code in ("2xx", "4xx", "413", "429", "5xx"):
            client.answers[method, code] += 1
    text = meter.text().decode()
    count = metrics.series_in(text.encode())
    assert 500 < count <= 800, count
    named = {key[1] for key in parse(text) if key[0] == "jobs_total"}
    assert len(named) == 11 and "other" in named and "twitter" in named
    promtool("check", "metrics", text=text)


# Off


async def test_missing_library_is_named_and_the_bot_runs(
    stage: Stage, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.add_plugin("metrics")
    find, missing = importlib.util.find_spec, "prometheus_client"
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: find(name) if name != missing else None
    )
    async with stage.bot(**ANY_PORT) as bot:
        await stage.says(f"$dlt {link(stage.image())}")
        await stage.gets(1)
        assert not bot.app.plugins.all["metrics"].failures
    assert any("prometheus_client is missing" in line for line in logged)


def test_metrics_that_are_off_cost_nothing(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path; from bossbot import *"
        "; app = App(Settings(), Path(sys.argv[1]))"
        "; app.plugins.load(); [life] = app.plugins.impls('run', 'metrics')"
        "; asyncio.run(app.plugins.invoke(life, app.plugins.all['metrics']))"
        "; off = [p.off for p in app.plugins.all.values() if p.off]; assert not off, off"
        "; assert app.plugins.on_call is None"
        "; print({'prometheus_client', 'http.server'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, our_plugins("metrics")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "set()\n", done.stderr


# What is shipped


def documented() -> set[str]:
    """The figures in the table of docs/monitoring.md."""
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    table = page.partition("| name |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def expressions() -> list[str]:
    """What the dashboard asks Prometheus for, as it sends it."""
    board = json.loads((ROOT / "deploy" / "grafana.json").read_text("utf-8"))
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [re.sub(r"\$__\w+", "5m", expr).replace("$instance", ".+") for expr in found]


def test_dashboard_and_alerts_ask_for_figures_that_there_are(tmp_path: Path) -> None:
    alerts = (ROOT / "deploy" / "alerts.yml").read_text("utf-8")
    assert len(expressions()) > 20
    for text in (*expressions(), *re.findall(r"expr:((?:.|\n)+?)labels:", alerts)):
        asked = set(re.findall(r"bossbot_(\w+)", text))
        assert {re.sub("_(bucket|count|sum)$", "", a) for a in asked} <= documented()
    promtool("check", "rules", str(ROOT / "deploy" / "alerts.yml"))
    promtool("check", "config", "--lint=none", str(ROOT / "deploy" / "prometheus.yml"))
    groups = [{"record": f"r{n}", "expr": e} for n, e in enumerate(expressions())]
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"groups": [{"name": "board", "rules": groups}]}))
    promtool("check", "rules", str(rules))


# The figures that an alert is about, from minute to minute, and whether it is given.
ALERTS = {
    "BossBotStuck": [
        (
            True,
            {
                'queue_jobs{status="queued"}': "2x120",
                "queue_oldest_age_seconds": "0+60x120",
            },
        ),
        (
            False,
            {
                'queue_jobs{status="queued"}': "2x120",
                "queue_oldest_age_seconds": "0+60x120",
                'jobs_total{platform="x",status="completed"}': "0+1x120",
            },
        ),
        (
            False,
            {
                'queue_jobs{status="queued"}': "0x120",
                "queue_oldest_age_seconds": "0x120",
            },
        ),
    ],
    "BossBotDisconnected": [
        (True, {"discord_connected": "0x120"}),
        (False, {"discord_connected": "1x115 0 0 0 0 0"}),
    ],
    "BossBotFailing": [
        (
            True,
            {
                'job_failures_total{platform="x",cause="internal"}': "0+8x120",
                'jobs_total{platform="x",status="failed"}': "0+8x120",
                'jobs_total{platform="x",status="completed"}': "0+2x120",
            },
        ),
        (
            False,
            {
                'job_failures_total{platform="x",cause="gone"}': "0+8x120",
                'jobs_total{platform="x",status="failed"}': "0+8x120",
            },
        ),
        (
            False,  # one alone
            {
                'job_failures_total{platform="x",cause="internal"}': "0x90 1x30",
                'jobs_total{platform="x",status="failed"}': "0x90 1x30",
            },
        ),
    ],
    "BossBotSlow": [
        (
            True,
            {
                'event_loop_lag_seconds_bucket{le="1"}': "0+50x120",
                'event_loop_lag_seconds_bucket{le="5"}': "0+60x120",
                'event_loop_lag_seconds_bucket{le="+Inf"}': "0+60x120",
            },
        ),
    ],
    "BossBotDiskLow": [
        (True, {"storage_free_bytes": "5e8x120"}),
        (False, {"storage_free_bytes": "5e9x120"}),
    ],
    "BossBotPluginOff": [
        (True, {'plugins{state="off"}': "1x120"}),
        (False, {'plugins{state="disabled"}': "1x120"}),
    ],
    "BossBotPluginFails": [
        (True, {'plugin_failures_total{plugin="x",hook="run"}': "0+1x120"}),
        (False, {'plugin_failures_total{plugin="x",hook="run"}': "1x120"}),
    ],
    "BossBotEngineOld": [(True, {'engine_age_seconds{engine="x"}': "8e6x120"})],
}


def test_alerts_are_given_when_they_should_be(tmp_path: Path) -> None:
    asked, cases = [], [(name, *case) for name in ALERTS for case in ALERTS[name]]
    for name, given, figures in cases:
        series = [
            {"series": with_instance(f"bossbot_{key}"), "values": values}
            for key, values in figures.items()
        ]
        expr = (
            f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) > 0 or vector(0)'
        )
        wanted = {"labels": "{}", "value": 1 if given else 0}
        test = {"expr": expr, "eval_time": "2h", "exp_samples": [wanted]}
        asked.append(
            {"interval": "1m", "input_series": series, "promql_expr_test": [test]}
        )
    rules = str(ROOT / "deploy" / "alerts.yml")
    file = tmp_path / "tests.json"
    file.write_text(json.dumps({"rule_files": [rules], "tests": asked}))
    promtool("test", "rules", str(file))


def with_instance(series: str) -> str:
    name, brace, labels = series.partition("{")
    return f'{name}{{instance="a",job="boss-bot"{"," + labels if brace else "}"}'


async def test_docs_name_every_figure(
    make_app: MakeApp, make_settings: MakeSettings
) -> None:
    app = make_app(make_settings(discord_token="x"))
    text = module("metrics").Meter(app).text().decode()
    assert set(re.findall(r"^# TYPE bossbot_(\w+)", text, re.MULTILINE)) == documented()
