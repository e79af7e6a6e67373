"""Class names as keys: two classes of one name stay two."""

from collections import Counter

__all__ = ["distinct_names"]


def distinct_names(names, ids):
    """The names, each with its category id behind it where another class has the same: ``fish (id 2)``.

    Args:
        names, ids: of all classes, in one order; the ids differ.
    """
    counts, taken, distinct = Counter(names), set(names), []
    for name, class_id in zip(names, ids):
        text = name if counts[name] == 1 else f"{name} (id {class_id})"
        while counts[name] > 1 and text in taken:  # a third class is called so
            text += "'"
        taken.add(text)
        distinct.append(text)
    return distinct
