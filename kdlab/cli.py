"""The command line: `kdlab lab` opens the course, `kdlab run` runs it, `kdlab data` fetches data sets."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Knowledge distillation, live.")
FIRST, LIVE = "00_start_here.ipynb", "03_live_distillation.ipynb"


@app.command()
def lab(
    notebook: Annotated[str, typer.Option(help="to open first: its name or number")] = "",
    app: Annotated[bool, typer.Option(help="as a page without code, for a projector; 03 if none is named")] = False,
    port: int = 8888,
    no_browser: bool = False,
) -> None:
    """Open JupyterLab on the course; without a screen it prints its address and stays."""
    from kdlab import course

    path = course.find(notebooks_folder(), [notebook or (LIVE if app else FIRST)])[0]
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
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={path.parent}",
               f"--LabApp.default_url=/lab/tree/{path.name}"]  # fmt: skip
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
    return [sys.executable, "-m", "voila", str(copy), "--Voila.ip=127.0.0.1", "--template=projector",
            "--strip_sources=True", "--theme=light",
            "--show_tracebacks=True", f"--Voila.connection_dir_root={copy.parent}",
            "--MappingKernelManager.cull_idle_timeout=300"]  # of a page that is gone; an open one stays


class _Pairs(typer.core.TyperCommand):
    """`-p T 8`, as papermill writes it, is `-p T=8`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
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
    from kdlab import course, machine

    paths, out = course.find(notebooks_folder(), notebooks or []), Path("build") / (profile or "own")
    parameters = {path: course.profile(path, profile) | course.given(path, p or [], paths) for path in paths}
    failed, rows = [], []
    for path, seconds, problem in course.run(parameters, out, j):
        said = "ok, in the run that was interrupted" if seconds is None else problem or "ok"
        print(f"{path.stem:24} {seconds or 0:7.1f} s  {said}", flush=True)
        if problem:
            failed.append(path.stem)
        elif html:
            print(f"{'':24} {course.to_html(out / path.name, Path('build') / 'html')}")
        if seconds is not None:
            rows.append({"notebook": path.stem, "profile": profile or "own", "seconds": round(seconds, 1),
                         "machine": machine.describe()})  # fmt: skip
    if keep and not failed:
        _keep(rows, notebooks_folder().parent / "results" / "notebooks.json")
    if failed:
        typer.echo(f"failed: {', '.join(failed)}; their cells and errors are in {out}", err=True)
        raise typer.Exit(1)


def _keep(rows: list[dict], path: Path) -> None:
    """Put the new rows in the place of the old ones of the same notebook and profile; the others stay."""
    kept = {(row["notebook"], row["profile"]): row for row in [*json.loads(path.read_text("utf-8")), *rows]}
    path.write_text(json.dumps([kept[key] for key in sorted(kept)], indent=1) + "\n", encoding="utf-8")


@app.command()
def report(
    as_json: Annotated[bool, typer.Option("--json", help="print the claims as JSON, and write nothing")] = False,
) -> None:
    """The paper's claims beside what was measured, as build/html/report.html; and the README's numbers anew."""
    from kdlab.course import claims_page, readme, records

    rows = records.judged(records.kept())
    if as_json:
        print(json.dumps([{key: row[key] for key in row if key not in ("says", "record")} for row in rows], indent=1))
        return
    folder = Path("build") / "html"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(claims_page.of(rows, folder), encoding="utf-8")
    print(f"{folder / 'report.html'}: {claims_page.counted(rows)}")
    root = notebooks_folder().parent
    page, results = root / "README.md", root / "results"
    page.write_text(readme.fill(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    (root / "docs" / "claims.svg").write_text(readme.figure(results), encoding="utf-8")


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


def notebooks_folder() -> Path:
    """The course's folder: beside the package in a checkout, else in the folder one stands in."""
    for root in (Path(__file__).parent.parent, Path.cwd()):
        if (root / "notebooks" / FIRST).exists():
            return root / "notebooks"
    raise typer.BadParameter("no notebooks/ here or beside the package: run kdlab from a checkout of the course")


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
