"""Check that notebooks are committed without outputs and with the ids of their cells.

python scripts/check_notebooks.py                    # every notebook of the course
python scripts/check_notebooks.py notebooks/01*.ipynb
"""

import json
import sys
from collections import Counter
from pathlib import Path


def problems(path: Path) -> list[str]:
    """Return what is wrong with a notebook, a line for each cell and problem; an empty list if it is clean."""
    found, ids = [], Counter()
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"], 1):
        if cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"]):
            found.append(
                f"{path}: cell {number} has outputs; clear them (Edit > Clear Outputs of All Cells, then save)"
            )
        if not cell.get("id"):
            found.append(f"{path}: cell {number} has no id; restore the ids from the last commit")
        ids[cell.get("id")] += 1
    return found + [f"{path}: {n} cells have the id {i!r}; give each its own" for i, n in ids.items() if i and n > 1]


def main() -> None:
    here = Path(__file__).parent.parent / "notebooks"
    paths = [Path(word) for word in sys.argv[1:]] or sorted(here.glob("[0-9][0-9]_*.ipynb"))
    found = [line for path in paths for line in problems(path)]
    print("\n".join(found), end="\n" if found else "", file=sys.stderr)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
