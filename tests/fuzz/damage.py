"""How files are damaged, and how many examples a search makes."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st

EXAMPLES = settings().max_examples // 2 if settings().max_examples <= 100 else settings().max_examples
"""50 in the suite, 1,000 with `--hypothesis-profile=thousand`."""


@dataclass(frozen=True)
class Damage:
    """What happens to the bytes of a file.

    Attributes:
        cut: share of the file that is kept.
        flips: places, as shares of the file, and what their bytes are combined with by exclusive or.
        inserted: bytes that are put in at a place.
    """

    cut: float = 1.0
    flips: tuple[tuple[float, int], ...] = ()
    inserted: tuple[float, bytes] = (0.0, b"")

    def of(self, content: bytes) -> bytes:
        """The damaged content."""
        place, more = int(self.inserted[0] * len(content)), self.inserted[1]
        damaged = bytearray(content[:place] + more + content[place:])[: int(self.cut * (len(content) + len(more)))]
        for share, bits in self.flips:
            if damaged:
                damaged[min(int(share * len(damaged)), len(damaged) - 1)] ^= bits
        return bytes(damaged)


_SHARES = st.floats(0.0, 1.0)
DAMAGES = st.builds(
    Damage,
    cut=st.one_of(st.just(1.0), _SHARES),
    flips=st.lists(st.tuples(_SHARES, st.integers(1, 255)), max_size=4).map(tuple),
    inserted=st.tuples(_SHARES, st.binary(max_size=8)),
)


def is_one_line(error: Exception) -> bool:
    """Whether an error is fit to be printed after `error: `."""
    return bool(str(error).strip()) and "\n" not in str(error)
