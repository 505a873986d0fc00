"""Figures for Prometheus that are read only when somebody asks for them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Read = Callable[[], Mapping[Any, float]]


@dataclass(frozen=True)
class Figures:
    """A collector of one family: what ``read`` returns, by the value of its label, by a
    tuple of them, or by () where there is none. It is called in another thread."""

    kind: Literal["counter", "gauge"]
    name: str  # without the "_total" of a counter
    text: str
    labels: tuple[str, ...]
    read: Read

    def family(self, values: Mapping[Any, float]) -> Any:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kinds: dict[str, Any] = {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
        }
        family = kinds[self.kind](self.name, self.text, labels=self.labels)
        for key, number in values.items():
            family.add_metric(key if isinstance(key, tuple) else (key,), number)
        return family

    def describe(self) -> Iterable[Any]:
        """Its name, so that no other family gets the same."""
        return [self.family({})]

    def collect(self) -> Iterable[Any]:
        return [self.family(dict(self.read()))]


def counter(name: str, text: str, labels: tuple[str, ...], read: Read) -> Figures:
    return Figures("counter", name, text, labels, read)


def gauge(name: str, text: str, labels: tuple[str, ...], read: Read) -> Figures:
    return Figures("gauge", name, text, labels, read)
