"""What an import decided, in lines for its user."""

from __future__ import annotations

_MOST_NAMES = 12


class Decisions:
    """Lines in the order in which the decisions were first made. Decisions of one kind share a line."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}

    def add(self, decision: str, place: str = "") -> None:
        """Note a decision.

        Args:
            decision: what was decided, and why.
            place: the link, joint or file that it is about, where others may follow.
        """
        places = self._places.setdefault(decision, [])
        if place and place not in places:
            places.append(place)

    def lines(self) -> tuple[str, ...]:
        """One line per kind of decision."""
        return tuple(f"{few(places)}: {decision}" if places else decision for decision, places in self._places.items())


def few(names: list[str]) -> str:
    """Names in one line, of which the last are counted where there are many."""
    shown = ", ".join(names[:_MOST_NAMES])
    return f"{shown} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else shown
