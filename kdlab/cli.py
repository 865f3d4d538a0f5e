"""The command line: `kdlab lab` opens the course, `run` runs it, `report` sums it up; `data` and `store` keep house."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
import typer.core

from kdlab import disk, place

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Knowledge distillation, live.")
store_app = typer.Typer(no_args_is_help=True, help="Trained models and results that are kept: list or clear them.")
app.add_typer(store_app, name="store")
LIVE = "03_live_distillation.ipynb"


@app.callback()
def begin() -> None:
    disk.make_settings_absolute()  # servers and kernels work in other folders


@app.command()
def lab(
    notebook: Annotated[str, typer.Option(help="to open first: its name or number")] = "",
    app: Annotated[bool, typer.Option(help="as a page without code, for a projector; 03 if none is named")] = False,
    port: int = 8888,
    no_browser: bool = False,
) -> None:
    """Open JupyterLab on the course; without a screen it prints its address and stays.

    Where there is no course, its notebooks are put into kdlab-course/ here first; files that are there stay.
    """
    from kdlab import course

    folder, about = place.folder_or_copy()
    if about:
        print(about, flush=True)
    path = course.find(folder, [notebook or (LIVE if app else place.FIRST)])[0]
    command = _app(path) if app else _lab(path)
    command += [f"--port={port}"]
    if no_browser or not _has_screen():
        command.append("--no-browser")
        print("No screen here: open the address below in a browser on this machine. Ctrl-C ends it.", flush=True)
    if os.name == "posix":  # become the server, so that whoever ends this command ends it too
        os.execv(command[0], command)
    with contextlib.suppress(KeyboardInterrupt):
        raise typer.Exit(subprocess.run(command).returncode)


def _lab(path: Path) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={path.parent}",
        f"--LabApp.default_url=/lab/tree/{path.name}",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # a container's user; the server listens to this machine alone
    return command


def _app(path: Path) -> list[str]:
    from kdlab import course

    if importlib.util.find_spec("voila") is None:
        raise ValueError("the app is served by voila, which is not installed here; `pip install voila` brings it")
    # A folder of this process's own: another app, served at the same time, keeps its files.
    copy = course.for_projector(path, path.parent.parent / "build" / "app" / str(os.getpid()))
    places = [str(Path(__file__).parent / "widgets" / "page"), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    os.environ["JUPYTER_PATH"] = os.pathsep.join(places)  # where voila looks for our template
    return [
        sys.executable,
        "-m",
        "voila",
        str(copy),
        "--Voila.ip=127.0.0.1",
        "--template=projector",
        "--strip_sources=True",
        "--theme=light",
        "--show_tracebacks=True",
        f"--Voila.connection_dir_root={copy.parent}",
        "--MappingKernelManager.cull_idle_timeout=300",
    ]  # of a page that is gone; an open one stays


class _Pairs(typer.core.TyperCommand):
    """`-p T 8`, as papermill writes it, is `-p T=8`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # ty: ignore[incompatible-method-override]
        words, joined = list(args), []
        while words:
            joined.append(words.pop(0))
            pair = words[:2] if joined[-1] == "-p" else []
            if len(pair) == 2 and "=" not in pair[0] and not pair[1].startswith("--"):
                joined.append("=".join(pair))
                del words[:2]
        return super().parse_args(ctx, joined)


@app.command(cls=_Pairs)
def run(
    notebooks: Annotated[list[str] | None, typer.Argument(help="names or numbers, such as 01; all by default")] = None,
    profile: Annotated[str, typer.Option(help="smoke or full, from profiles.yaml; else the notebook's own")] = "",
    p: Annotated[list[str] | None, typer.Option("-p", metavar="NAME VALUE", help="a parameter, such as -p T 8")] = None,
    j: Annotated[int, typer.Option("-j", min=1, help="how many notebooks at once")] = 1,
    html: Annotated[bool, typer.Option(help="also write each as a page in build/html")] = True,
    keep: Annotated[bool, typer.Option(help="also write the seconds to results/notebooks.json")] = False,
) -> None:
    """Run notebooks from top to bottom; what they show is kept in build/. Interrupted, it goes on where it stopped."""
    from kdlab import course

    course.without_slow_formats()
    root = place.root()
    paths, out = course.find(place.folder(), notebooks or []), root / "build" / (profile or "own")
    parameters = {path: course.profile(path, profile) | course.given(path, p or [], paths) for path in paths}
    failed, rows = [], []
    for path, seconds, problem in course.run(parameters, out, j):
        said = "ok, in the run that was interrupted" if seconds is None else problem or "ok"
        print(f"{path.stem:24} {seconds or 0:7.1f} s  {said}", flush=True)
        if problem:
            failed.append(path.stem)
        elif html:
            print(f"{'':24} {_shown(course.to_html(out / path.name, root / 'build' / 'html'))}")
        if seconds is not None:
            rows.append({"notebook": path.stem, "profile": profile or "own", "seconds": round(seconds, 1)})
    if html and rows:
        print(_shown(course.write_index(root / "build" / "html", course.contents.COURSE)))
    if keep and not failed:
        _keep(rows, root / "results" / "notebooks.json")
    if failed:
        typer.echo(f"failed: {', '.join(failed)}; their cells and errors are in {_shown(out)}", err=True)
        raise typer.Exit(1)


def _keep(rows: list[dict], path: Path) -> None:
    """Put the new rows, of this machine, in the place of the old ones of their notebook and profile; others stay."""
    from kdlab import machine

    before = json.loads(path.read_text("utf-8")) if path.exists() else []
    here = machine.describe()
    timed = {(row["notebook"], row["profile"]): row for row in [*before, *(row | {"machine": here} for row in rows)]}
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write(path, (json.dumps([timed[key] for key in sorted(timed)], indent=1) + "\n").encode())


@app.command()
def report(
    as_json: Annotated[bool, typer.Option("--json", help="print the claims as JSON, and write nothing")] = False,
) -> None:
    """The claims beside what was measured, as build/html/report.html; and the pages of results anew."""
    from kdlab.course import claims_page, header, readme, records

    root = place.root()
    rows = records.judged(records.kept())
    if as_json:
        print(json.dumps([{key: row[key] for key in row if key not in ("says", "record")} for row in rows], indent=1))
        return
    folder = root / "build" / "html"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(claims_page.of(rows, folder), encoding="utf-8")
    print(f"{_shown(folder / 'report.html')}: {claims_page.counted(rows)}")
    results, pages = root / "results", [root / name for name in readme.PAGES]
    filled = [page for page in pages if page.exists() and "<!-- results: " in page.read_text(encoding="utf-8")]
    for page in filled:  # a checkout
        page.write_text(readme.fill(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    for notebook in (root / "notebooks").glob("*.ipynb") if filled else ():
        notebook.write_text(header.fill(notebook, results), encoding="utf-8")
    if filled:
        (root / "docs" / "claims.svg").write_text(readme.figure(results), encoding="utf-8")


@app.command()
def site(
    profile: Annotated[str, typer.Option(help="the run to show: smoke or full; else at own values")] = "",
) -> None:
    """Make the site from the notebooks that were run, in build/site: open its index.html, no server is needed."""
    from kdlab.course import contents, site

    root = place.root()
    executed, out = root / "build" / (profile or "own"), root / "build" / "site"
    warnings = site.build(root, executed, out)
    absent = [entry.number for entry in contents.COURSE if not (executed / f"{entry.file}.ipynb").exists()]
    if absent:
        print(f"left out, as they were not run: {', '.join(absent)} (`kdlab run {' '.join(absent)}` runs them)")
    for line in warnings:
        print(line, file=sys.stderr)
    print(f"{_shown(out / 'index.html')}: open it in a browser, or hand out the whole folder")


@app.command()
def data(names: Annotated[list[str] | None, typer.Argument(help="data sets to fetch; none lists them")] = None) -> None:
    """Fetch data sets into the cache ahead of a lesson, or list where each would come from."""
    from kdlab import data as sets

    for name in names or []:
        for path in sets.fetch(name) or ["made here when it is asked for"]:
            print(f"{name:16} {path}")
    if not names:
        for name in sets.names():
            for file, place in (sets.where(name) or {"(no file)": "made here when it is asked for"}).items():
                print(f"{name:16} {file:28} {place}")


@app.command()
def page(path: Annotated[Path, typer.Argument(help="the file to write")] = Path("student.html")) -> None:
    """Write a page on which a student learns in the browser: one file that needs neither Python nor a network."""
    from kdlab.widgets import in_page

    print(f"{in_page.write_page(path)}: open it in a browser, or hand it out")


@store_app.command("where")
def store_where() -> None:
    """Print the folder of the store."""
    from kdlab import store

    print(store.folder())


@store_app.command("list")
def store_list() -> None:
    """List what is kept: name, the notebook it is of, how many entries, megabytes, when the last was made."""
    from kdlab import store

    rows, unfinished = _summary(), store.unfinished()
    print(f"{'name':32} {'notebook':28} {'entries':>7} {'MB':>9}  last made")
    for row in rows:
        said = f"  {row['damaged']} damaged" if row["damaged"] else ""
        print(
            f"{row['name']:32} {row['notebook'] or '–':28} {row['entries']:7} {row['bytes'] / 1e6:9.1f}  "
            f"{row['when'] or '–'}{said}"
        )
    print(
        f"{sum(row['entries'] for row in rows)} entries, {sum(row['bytes'] for row in rows) / 1e6:.1f} MB, "
        f"in {store.folder()}"
    )
    for path in unfinished:
        print(f"a training of {path.name.split('.')[0]!r} was interrupted and can go on: {path.name}")


@store_app.command("clear")
def store_clear(
    name: Annotated[str, typer.Argument(help="of entries, as `kdlab store list` shows it; all if none is given")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="delete all without asking")] = False,
) -> None:
    """Delete what is kept under a name, or all that is kept; files that are not the store's stay."""
    from kdlab import store

    rows = _summary()
    names = sorted({row["name"] for row in rows} | {path.name.split(".")[0] for path in store.unfinished()})
    if name and name not in names:
        raise ValueError(f"nothing is kept as {name!r} in {store.folder()}; there are {', '.join(names) or 'none'}")
    doomed = [row for row in rows if name in ("", row["name"])]
    what = f"{sum(row['entries'] for row in doomed)} entries, {sum(row['bytes'] for row in doomed) / 1e6:.1f} MB"
    if not name and not yes:
        print(f"This would delete all that is kept in {store.folder()}: {what}, of {', '.join(names) or 'none'}.")
        if not sys.stdin.isatty():
            raise ValueError("nothing was deleted; --yes deletes it")
        typer.confirm("Delete it?", abort=True)
    for each in [name] if name else names:
        store.forget(each)
    print(f"deleted: {what}")


def _summary() -> list[dict]:
    """Sum up the entries by name and notebook: how many, bytes, when the last was made, how many are damaged."""
    from kdlab import store

    rows: dict[tuple, dict] = {}
    for entry in store.entries():
        key = entry["name"], (entry["settings"] or {}).get("notebook")
        empty = {"name": key[0], "notebook": key[1], "entries": 0, "bytes": 0, "when": None, "damaged": 0}
        row = rows.setdefault(key, empty)
        row["entries"] += 1
        row["bytes"] += entry["bytes"]
        row["when"] = max(filter(None, (row["when"], entry["when"])), default=None)
        row["damaged"] += entry["damaged"] is not None
    return list(rows.values())


def _shown(path: Path) -> Path:
    """A path as a person reads it: from the folder one stands in, if it lies there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _has_screen() -> bool:
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def main() -> None:
    """The command line, with what a person can mend said in a line instead of a traceback."""
    try:
        app()
    except Exception as error:
        from kdlab.data import DataUnavailable

        if not isinstance(error, ValueError | DataUnavailable):
            raise
        sys.exit(f"kdlab: {error}")


if __name__ == "__main__":
    main()
