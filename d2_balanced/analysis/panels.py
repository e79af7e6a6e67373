"""Panels of labelled curves and of point densities, drawn with matplotlib's Agg backend."""

from __future__ import annotations

import numpy as np

__all__ = ["curve_figure", "density_figure", "per_image", "plain_log_labels", "share"]


def per_image(fields, name):
    """A one-entry field divided by the number of images; NaN if there are no images."""
    return share(fields[name], fields["images"])[0]


def share(part, whole):
    """``part / whole``, NaN where ``whole`` is 0."""
    whole = np.asarray(whole, dtype=float)
    return np.asarray(part, dtype=float) / np.where(whole > 0, whole, np.nan)


def curve_figure(title, panels, steps=False, ordered=False, columns=0):
    """Panels with curves.

    Args:
        title: over the whole figure.
        panels: list of ``(title, x label, y label, {label: (x, y)}, options)``; ``(x, y, spread)`` draws a band of
            ``y +- spread`` behind the curve. The options may be left out: "xlim", "ylim", "yscale", "diagonal" (from,
            to) or "zero" for a reference line, "whole" for whole numbers along x.
        steps: draw histograms: x are the middles of bins of equal width, two or more.
        ordered: the labels have an order, so the colours form a sequence.
        columns: panels side by side before a new line begins; 0: all.

    Returns a matplotlib figure, or ``None`` if there is no curve at all.
    """
    if not any(panel[3] for panel in panels):
        return None
    columns = min(columns or len(panels), len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(title, columns, lines)
    labels = list(dict.fromkeys(label for panel in panels for label in panel[3]))
    colours = dict(zip(labels, _colours(len(labels), ordered)))  # the same in all panels
    for number, panel in enumerate(panels, start=1):
        _draw(figure.add_subplot(lines, columns, number), colours, steps, *panel)
    return figure


def density_figure(title, panels, x_label, y_label, x_limits, y_limits, bins=50, diagonal=True):
    """A row of two-dimensional histograms, darker where there are more points.

    Args:
        title: over the whole figure.
        panels: list of ``(title, x (n,), y (n,))``; points outside the limits are left out.
        x_label, y_label, x_limits, y_limits: of all panels.
        bins: along each axis.
        diagonal: draw the line y = x.

    Returns a matplotlib figure.
    """
    from matplotlib.colors import LogNorm

    figure = _figure(title, len(panels))
    for number, (panel_title, x, y) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        counts, x_edges, y_edges = np.histogram2d(x, y, bins, (x_limits, y_limits))
        if counts.any():
            counts = np.where(counts > 0, counts, np.nan).T
            mesh = axes.pcolormesh(x_edges, y_edges, counts, norm=LogNorm(), cmap="viridis_r")
            figure.colorbar(mesh, ax=axes, label="boxes")
        if diagonal:
            axes.plot(x_limits, x_limits, color="grey", linestyle="--", linewidth=1)
        axes.set(title=panel_title, xlabel=x_label, ylabel=y_label, xlim=x_limits, ylim=y_limits)
    return figure


def _colours(number, ordered):
    if not ordered:
        return [f"C{k % 10}" for k in range(number)]
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * k / max(number - 1, 1)) for k in range(number)]


def _figure(title, columns, lines=1):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 4.2 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure


def plain_log_labels(axes):
    """Numbers as 0.1, 2 and 10 along a logarithmic y axis."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x, pos=None):
            return f"{x:g}" if super().__call__(x, pos) else ""  # it leaves out what would be crowded

    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(Plain(minor_thresholds=(1, 0.4)))


def _draw(axes, colours, steps, title, x_label, y_label, curves, options=None):
    options = dict(options or {})
    for label, (x, y, *spread) in curves.items():
        if spread:
            band = np.array(spread[0], dtype=float)
            axes.fill_between(x, y - band, y + band, color=colours[label], alpha=0.2, linewidth=0)
        if steps:
            width = 0.5 * (x[1] - x[0])
            axes.stairs(y, np.append(x - width, x[-1] + width), label=label, color=colours[label])
        else:
            axes.plot(x, y, label=label, color=colours[label], marker="." if len(x) < 40 else None)
    diagonal = options.pop("diagonal", None)
    if diagonal:
        axes.plot(diagonal, diagonal, color="grey", linestyle="--", linewidth=1, label="equal")
    if options.pop("zero", False):
        axes.axhline(0, color="grey", linestyle="--", linewidth=1)
    if options.pop("whole", False):
        axes.xaxis.get_major_locator().set_params(integer=True)
    positive = any(np.nanmax(curve[1], initial=0) > 0 for curve in curves.values())
    if options.get("yscale") == "log" and not positive:
        options.pop("yscale")
    axes.set(title=title, xlabel=x_label, ylabel=y_label, **options)
    if options.get("yscale") == "log":
        plain_log_labels(axes)
    axes.grid(alpha=0.3)
    if len(curves) > 1 or (curves and diagonal):  # one curve is what the titles say
        axes.legend(fontsize="small")
