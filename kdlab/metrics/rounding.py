"""Numbers as they are printed: to the digits that their spread leaves, and no further."""

import math


def round_to_spread(value: float, spread: float | None = None) -> tuple[str, str]:
    """Print a value and its spread: two significant digits of the spread, the value to the same place.

    (79.36, 6.12) is ("79.4", "6.1"); (100.0, 71.2) is ("100", "71"). Without a spread the value keeps three
    significant digits, a whole number all of its own, and the second text is empty. A spread of 0 says no more.
    """
    if not spread:
        return _plain(value), "0" if spread == 0 else ""
    places = 1 - int(f"{spread:.1e}".partition("e")[2])  # of the rounded spread: 0.0996 is 0.10, not 0.100
    return _fixed(value, places), _fixed(spread, places)


def _plain(value: float) -> str:
    if value == round(value):
        return f"{value:.0f}"
    if float(f"{value:.3g}") == value:  # it has no more digits
        return f"{value:.3g}"
    return _fixed(value, max(0, 2 - math.floor(math.log10(abs(value)))))


def _fixed(value: float, places: int) -> str:
    rounded = round(value, places) + 0.0  # + 0.0: no minus before a zero
    return f"{rounded:.{max(0, places)}f}"
