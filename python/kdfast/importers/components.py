"""Groups of things that belong together, directly or through others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence


def components(keys: Sequence[Iterable[Hashable]]) -> list[list[int]]:
    """Connected components: two things belong together if they share a key, directly or through others.

    Args:
        keys: the keys of each thing.

    Returns:
        For each group the indices of its things, ascending; the groups are in the order of their first thing.

    Example:
        >>> components([{"a", "x"}, {"b"}, {"a", "c"}, {"c"}])
        [[0, 2, 3], [1]]
    """
    parent = list(range(len(keys)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[Hashable, int] = {}
    for index, own in enumerate(keys):
        for key in own:
            a, b = root(first.setdefault(key, index)), root(index)
            parent[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(keys)):
        groups[root(index)].append(index)
    return list(groups.values())
