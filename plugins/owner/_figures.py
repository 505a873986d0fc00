"""Figures for Prometheus that are read only on request."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple


class Figures(NamedTuple):
    """A collector of one family: what ``read`` returns, by the value of its label or by a
    tuple of them; only a number where there is none. It is called in another thread."""

    kind: Literal["counter", "gauge"]
    name: str  # without the "_total" of a counter
    text: str
    labels: tuple[str, ...]
    read: Callable[[], Mapping[Any, float] | float]

    def family(self, values: Mapping[Any, float]) -> Any:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kind: Any = GaugeMetricFamily if self.kind == "gauge" else CounterMetricFamily
        family = kind(self.name, self.text, labels=self.labels)
        for key, number in values.items():
            family.add_metric(key if isinstance(key, tuple) else (key,), number)
        return family

    def describe(self) -> Iterable[Any]:
        """Its name, so that no other family gets the same."""
        return [self.family({})]

    def collect(self) -> Iterable[Any]:
        found = self.read()
        values = dict(found) if isinstance(found, Mapping) else {(): found}
        return [self.family(values)]


counter = partial(Figures, "counter")
gauge = partial(Figures, "gauge")
