"""Adds a figure, and does what harm the plugin's name says."""

from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from bossbot import hookimpl

NAME, OF = __name__.rpartition(".")[2], "me"


def divide() -> float:
    raise ZeroDivisionError("division by zero")


@hookimpl
def register_metrics(registry: CollectorRegistry, app: Any) -> None:
    match NAME:
        case "takes":
            Gauge("bossbot_plugins", "x", registry=registry)
        case "half":
            Gauge("half_a", "x", registry=registry)
            divide()
        case "breaks":
            Gauge("breaks", "x", registry=registry).set_function(divide)
        case "floods":
            flood = Gauge("flood", "x", ["id"], registry=registry)
            for number in range(900):
                flood.labels(number)
        case "waits":
            waits = Gauge("waits", "x", registry=registry)
            waits.set_function(lambda: app.turned.wait() and 5)
        case _:
            Gauge("mine", "Mine", ["of"], registry=registry).labels(OF).set(7)
