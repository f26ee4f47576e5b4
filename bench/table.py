"""Rows of ratios."""

from statistics import median

WIDTHS = (46, 24, 24, 12)


def _span(ratios):
    """`median (lowest..highest)`."""
    if not ratios:
        return "-"
    return f"{_short(median(ratios))} ({_short(min(ratios))}..{_short(max(ratios))})"


def _short(number):
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


class Table:
    """Prints rows as they come, and keeps the figures behind them."""

    def __init__(self):
        self.rows = []

    def print_head(self):
        self._print("real / cyrbk: the higher the better", "wall clock", "CPU", "peak memory")

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
        self.rows.append({"label": label, "real": real, "cyrbk": ours, "stopped": less_than})

    def single(self, label, ratio):
        """A row with one ratio that is not of time."""
        self._print(label, _short(ratio), "", "")
        self.rows.append({"label": label, "ratio": ratio})

    @staticmethod
    def _print(*cells):
        print("".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS)).rstrip(),
              flush=True)
