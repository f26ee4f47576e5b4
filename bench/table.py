"""Rows of ratios."""

import json
import sys
from pathlib import Path
from statistics import median

from harness import CYRBK, CYRUS

WIDTHS = (46, 24, 24, 12)


def _span(ratios):
    """`median (lowest..highest)`."""
    if not ratios:
        return "-"
    return f"{_short(median(ratios))} ({_short(min(ratios))}..{_short(max(ratios))})"


def _short(number):
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


class Figure:
    """A row under way: runs of both makers, each (wall, CPU, peak), `None` for what is not known.

    Used in a `with` statement; the row is printed at the end of it, also if that comes early."""

    def __init__(self, table, label):
        self.table, self.label = table, label
        self.runs = {CYRUS: [], CYRBK: []}
        self.was_stopped = False

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if all(self.runs.values()) and kind in (None, KeyboardInterrupt):
            self.table.ratio(self.label, self.runs[CYRUS], self.runs[CYRBK], self.was_stopped)

    def add(self, maker, cost):
        self.runs[maker].append(cost)
        real, ours = self.runs[CYRUS], self.runs[CYRBK]
        if maker == CYRBK and len(real) == len(ours):
            self.table.progress(f"{self.label}, round {len(ours)}: "
                                f"{_short(real[-1][0] / ours[-1][0])}")

    def stopped(self, cost):
        """The real one was not let go on: it takes at least so much."""
        self.was_stopped = True
        self.add(CYRUS, cost)

    def is_over(self, cap):
        """Whether the real one has had its time, in seconds, and at least one run."""
        return self.was_stopped or sum(wall for wall, _, _ in self.runs[CYRUS]) > cap


class Table:
    """Prints rows as they come, and keeps the figures behind them."""

    def __init__(self, json_file=None):
        self.rows = []
        self.json_file = json_file

    def print_head(self):
        self._print("real / cyrbk: the higher the better", "wall clock", "CPU", "peak memory")

    def figure(self, label):
        return Figure(self, label)

    def ratio(self, label, real, ours, less_than=False):
        """A row from pairs of runs: lists of (wall, cpu, peak), in the order of the rounds.

        `None` for what is not known. With `less_than` the real one was stopped: at least so much.
        """
        columns = [
            [a[i] / b[i] for a, b in zip(real, ours) if a[i] and b[i]] for i in range(3)
        ]
        wall, cpu = ((">" if less_than and c else "") + _span(c) for c in columns[:2])
        peak = _short(median(columns[2])) if columns[2] else "-"
        self._print(label, wall, cpu, peak)
        self._keep({"label": label, "real": real, "cyrbk": ours, "stopped": less_than})

    def single(self, label, ratio):
        """A row with one ratio that is not of time."""
        self._print(label, _short(ratio), "", "")
        self._keep({"label": label, "ratio": ratio})

    def growth(self, label, low, high):
        """A row from pairs of cyrbk's own runs: (wall, cpu), with little stored and with much.
        Of the wall clock the median; of the CPU time, which others disturb less, the sum."""
        if not high:
            return
        wall = median(b[0] / a[0] for a, b in zip(low, high))
        cpu = sum(b[1] for b in high) / sum(a[1] for a, _ in zip(low, high))
        self._print(label, _short(wall), _short(cpu), "")
        self._keep({"label": label, "low": low, "high": high})

    @staticmethod
    def progress(text):
        """For whoever watches."""
        print(f"    {text}", file=sys.stderr, flush=True)

    def _keep(self, row):
        self.rows.append(row)
        if self.json_file:
            Path(self.json_file).write_text(json.dumps(self.rows, indent=1) + "\n")

    @staticmethod
    def _print(*cells):
        print("".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS)).rstrip(),
              flush=True)
