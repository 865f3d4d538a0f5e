"""The front of all compressed models: a dot a model, what it costs against the points it loses, drawn by Bokeh."""

from pathlib import Path

from kdlab.course import readme
from kdlab.metrics import Row, Table, front
from kdlab.metrics.table import COLUMNS

AXES = {"bytes": "size on disk", "multiply_adds": "multiply-adds", "ms_32": "time, 32 cases", "ms_1": "time, 1 case"}
METHODS = {  # notebook -> method, color (Okabe and Ito's), marker
    "09_the_ruler": ("reference", "#000000", "star"),
    "10_prune": ("prune", "#0072b2", "circle"),
    "11_factorize": ("factorize", "#e69f00", "square"),
    "12_distill": ("distill", "#009e73", "triangle"),
    "13_share": ("share", "#cc79a7", "diamond"),
    "14_quantize": ("quantize", "#d55e00", "inverted_triangle"),
    "16_together": ("together", "#56b4e9", "hex"),
}
SIZE = {"width": 760, "height": 440}
SAYS = """# Compressed models: cost against accuracy

Each dot is one compressed BERT (MiniLM) of notebooks 09 to 16. The higher and the further left, the better; the line
joins the models that no other beats in both. Point at a dot for its numbers; click on a method in the legend to hide
or show it. Costs are percent of the uncompressed BERT's; of times, of a BERT that was timed in turns with the model,
where the record has that. The points compare both on the same test texts."""


def page(results: Path) -> str:
    """The page's Markdown: the plot, and the rows as a table. results: the folder with ruler/*.json."""
    files = readme.ruler_files(results)
    rows = [Row.from_plain(row) for file in files for row in file["rows"]]
    methods = [METHODS[file["notebook"]][0] for file in files for _ in file["rows"]]
    table = Table(rows)
    script, div = _embedded(table, methods)
    return (
        f'{SAYS}\n\n<script src="../_static/bokeh.min.js"></script>\n\n<div class="front">{_dense(div)}</div>\n'
        f"{_dense(script)}\n\n## The numbers\n\n{readme.markdown(table)}\n"
    )


def _dense(html: str) -> str:
    """HTML without empty lines, at which Markdown would begin a paragraph."""
    return "\n".join(line for line in html.strip().splitlines() if line.strip())


def scripts() -> list[Path]:
    """The files that the page loads."""
    import bokeh

    return [Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js"]


def _embedded(table: Table, methods: list[str]) -> tuple[str, str]:
    from bokeh.embed import components
    from bokeh.models import TabPanel, Tabs

    panels = [TabPanel(child=_figure(table, methods, key), title=title) for key, title in AXES.items()]
    return components(Tabs(tabs=panels, sizing_mode="scale_width", max_width=SIZE["width"]))


def _figure(table: Table, methods: list[str], key: str):
    """The plot of one cost."""
    plot = _axes(AXES[key])
    rows = [
        (method, row, 100 * share, row.score - reference.score)
        for method, row, reference in zip(methods, table.rows, table.references, strict=True)
        if (share := table.share(row, key)) is not None
    ]
    kept = front({i: (cost, points) for i, (_, _, cost, points) in enumerate(rows)})
    costs, points = ([rows[i][place] for i in kept] for place in (2, 3))
    plot.step(costs, points, mode="after", color="#999999", line_dash="dashed", legend_label="best at its cost")
    for method, color, marker in METHODS.values():
        mine = [row for row in rows if row[0] == method]
        if mine:
            _dots(plot, method, color, marker, mine)
    plot.add_tools(_hover([row for _, row, _, _ in rows]))
    plot.add_layout(plot.legend[0], "right")
    plot.legend.click_policy = "hide"
    return plot


def _axes(cost: str):
    from bokeh.models import FixedTicker
    from bokeh.plotting import figure

    plot = figure(
        **SIZE,
        x_axis_type="log",
        x_axis_label=f"{cost}, percent of BERT's",
        y_axis_label="points beside BERT",
        tools="pan,wheel_zoom,box_zoom,reset,save",
        toolbar_location="above",
        sizing_mode="scale_width",
    )
    plot.xaxis.ticker = FixedTicker(ticks=[1, 2, 5, 10, 20, 50, 100, 200])
    return plot


def _hover(rows: list[Row]):
    """What a dot shows when it is pointed at: its name, its score, and the costs that any of the rows has."""
    from bokeh.models import HoverTool

    known = {key: title for key, (title, _, _) in COLUMNS.items() if any(getattr(row, key) for row in rows)}
    shown = [(title, f"@{key}") for key, title in {"score": "right, %", **known}.items()]
    return HoverTool(tooltips=[("", "@name"), *shown])


def _dots(plot, method: str, color: str, marker: str, rows: list[tuple[str, Row, float, float]]) -> None:
    from bokeh.models import ColumnDataSource

    found = {"x": [row[2] for row in rows], "y": [row[3] for row in rows], "name": [row[1].name for row in rows]}
    found["score"] = [f"{row[1].score:.1f}" for row in rows]
    for key, (_, unit, digits) in COLUMNS.items():
        values = [getattr(row[1], key) for row in rows]
        found[key] = ["–" if value is None else f"{value * unit:,.{digits}f}" for value in values]
    look = {"size": 11, "color": color, "marker": marker, "fill_alpha": 0.8}
    plot.scatter("x", "y", source=ColumnDataSource(found), legend_label=method, **look)
