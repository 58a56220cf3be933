"""Counters, gauges and one histogram, in the text form that Prometheus reads."""

from collections.abc import Callable
from dataclasses import dataclass, field

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SERIES_MAX = 1000

Labels = tuple[tuple[str, str], ...]


@dataclass
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * len(_BUCKETS_S))
    total: int = 0
    sum_s: float = 0.0


class Metrics:
    """One registry for the role. At most SERIES_MAX series a kind; what would be more is counted
    under no labels, so that no caller can make memory grow by inventing names."""

    def __init__(self) -> None:
        self._help: dict[str, str] = {}
        self._counters: dict[tuple[str, Labels], float] = {}
        self._histograms: dict[tuple[str, Labels], _Histogram] = {}
        self._gauges: dict[str, Callable[[], float]] = {}

    def describe(self, name: str, text: str) -> None:
        self._help[name] = text

    def count(self, name: str, by: float = 1, labels: Labels = ()) -> None:
        key = (name, labels)
        if key not in self._counters and len(self._counters) >= SERIES_MAX:
            key = (name, ())
        self._counters[key] = self._counters.get(key, 0) + by

    def counted(self, name: str, labels: Labels = ()) -> float:
        return self._counters.get((name, labels), 0)

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """`read` is called at each scrape."""
        self._gauges[name] = read

    def observe(self, name: str, seconds: float, labels: Labels = ()) -> None:
        key = (name, labels)
        if key not in self._histograms and len(self._histograms) >= SERIES_MAX:
            key = (name, ())
        kept = self._histograms.setdefault(key, _Histogram())
        kept.total += 1
        kept.sum_s += seconds
        for at, bound in enumerate(_BUCKETS_S):
            if seconds <= bound:
                kept.counts[at] += 1

    def text(self) -> str:
        lines: list[str] = []
        self._section(lines, "counter", [(n, at, v) for (n, at), v in self._counters.items()])
        self._section(lines, "gauge", [(n, (), read()) for n, read in self._gauges.items()])
        self._histogram_section(lines)
        return "\n".join(lines) + "\n"

    def _section(
        self, lines: list[str], kind: str, series: list[tuple[str, Labels, float]]
    ) -> None:
        last = ""
        for name, labels, value in sorted(series):
            if name != last:
                lines += self._head(name, kind)
                last = name
            lines.append(f"{name}{_labels(labels)} {_number(value)}")

    def _histogram_section(self, lines: list[str]) -> None:
        last = ""
        for (name, labels), kept in sorted(self._histograms.items(), key=lambda item: item[0]):
            if name != last:
                lines += self._head(name, "histogram")
                last = name
            for bound, count in zip(_BUCKETS_S, kept.counts, strict=True):
                lines.append(f"{name}_bucket{_labels((*labels, ('le', f'{bound:g}')))} {count}")
            lines.append(f"{name}_bucket{_labels((*labels, ('le', '+Inf')))} {kept.total}")
            lines.append(f"{name}_sum{_labels(labels)} {_number(kept.sum_s)}")
            lines.append(f"{name}_count{_labels(labels)} {kept.total}")

    def _head(self, name: str, kind: str) -> list[str]:
        text = self._help.get(name, name.replace("_", " "))
        return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
