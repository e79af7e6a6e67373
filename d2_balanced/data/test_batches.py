"""Several images a pass at evaluation: images of one size together, so that none is padded more than alone."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Iterator, List, Tuple

__all__ = ["SameSizeBatches"]

_HELD = 8  # batches of images that wait for others of their size


class SameSizeBatches:
    """Puts the images of a test loader, which gives one or more at a time, into batches of one size.

    The order is another one: an image waits until ``batch_size`` of its size are there, or too many images wait, or the
    loader ends.

    Args:
        loader: gives lists of the model's inputs, dicts with "image" (C, H, W). Its length is that of this, too: passes
            are fewer, but what is logged of it counts images.
        batch_size: most images in a batch, 1 or more.
    """

    def __init__(self, loader: Iterable[List[Dict[str, Any]]], batch_size: int):
        self.loader, self.batch_size = loader, batch_size

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[List[Dict[str, Any]]]:
        waiting: Dict[Tuple[int, ...], List[Dict[str, Any]]] = {}
        for inputs in self.loader:
            for image in inputs:
                same = waiting.setdefault(tuple(image["image"].shape), [])
                same.append(image)
                if len(same) == self.batch_size:
                    yield waiting.pop(tuple(image["image"].shape))
            if sum(map(len, waiting.values())) > _HELD * self.batch_size:
                yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
        yield from waiting.values()
