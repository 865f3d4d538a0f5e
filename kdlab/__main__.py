"""`python -m kdlab` is `kdlab`."""

from kdlab.cli import main

main()
