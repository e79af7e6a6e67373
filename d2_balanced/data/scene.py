"""One picture of the generated data set: a pure function of (seed, split, index, size).

What makes it a detection problem: 1 to 20 objects over the whole range of a feature pyramid, which hide parts of each
other; look-alikes in the classes' colours that belong to no class; pictures without any object. What a detector of a
few hundred iterations cannot learn is kept mild (noise, turns, hidden parts), so that AP at high IoU is not all zero;
for longer trainings there is a harder level.
All randomness comes from ``numpy.random.RandomState``, whose streams are frozen over NumPy's versions, and all painting
is integer arithmetic, so a seed gives the same pixels everywhere.
"""

import math
from typing import NamedTuple

import numpy as np

from .outlines import CLASS_NAMES, LOOK_ALIKES, place_outline
from .raster import fill

__all__ = ["LEVELS", "Level", "Scene", "paint_scene", "draw_scene"]

LANDSCAPE = 0.7  # share of pictures that are wider than high
EMPTY_SHARE = 0.06  # of pictures; they may still have look-alikes
MAX_OBJECTS = 20
SMALLEST, LARGEST = 8 / 256, 200 / 256  # size of a shape over the picture's longer side
SMALLEST_LOOK_ALIKE = 20 / 256  # below that nobody could tell it from a class
MAX_STRETCH = 0.25  # log of width over height
MIN_PIXELS = 20
COLOURS = np.array([(200, 60, 60), (60, 170, 60), (60, 80, 210)])  # of the classes
COLOUR_SPREAD = 45  # around them
MIN_CONTRAST = 36  # to what a shape covers; mean absolute difference over the three channels, of 255
GREY, TINT = 15, 8  # of the background, around its mean
TRIES, COLOUR_TRIES = 25, 500  # then a shape is left out, or has the last colour whatever its contrast


class Level(NamedTuple):
    """How hard the pictures are.

    Attributes:
        look_alikes: shapes of no class in a picture, at most.
        turn: of a shape, at most; radians.
        crowded: share of shapes that are put beside another one.
        visible: share of a shape's area, at least, that neither another shape nor the border hides.
    """

    look_alikes: int
    turn: float
    crowded: float
    visible: float


LEVELS = {
    "mild": Level(look_alikes=2, turn=0.06, crowded=0.1, visible=0.8),
    "hard": Level(look_alikes=8, turn=0.2, crowded=0.35, visible=0.5),
}
"""``mild`` for some hundred iterations; ``hard`` for some thousand, where treatments of imbalance have more to do."""


class Scene:
    """A picture being painted, back to front, and what is where in it.

    Attributes:
        image: int16 (H, W, 3), RGB, clipped to 0..255 only at the end.
        owner: int16 (H, W), index of the shape that is visible in a pixel, -1 for the background.
        classes: class index of each shape, -1 for a look-alike.
        full_areas, visible_areas: pixels of each shape, hidden and outside ones included, and those to be seen.
    """

    def __init__(self, rng, width, height, level=LEVELS["mild"]):
        self.rng, self.level = rng, level
        self.width, self.height = width, height
        self.image = _background(rng, width, height)
        self.owner = np.full((height, width), -1, dtype=np.int16)
        self.classes, self.full_areas, self.visible_areas, self.centres = [], [], [], []

    def add(self, name, size):
        """Puts a shape in front of what is there, where it hides nothing too much; False if no place was found."""
        rng = self.rng
        stretch = math.exp(rng.uniform(-MAX_STRETCH, MAX_STRETCH))
        angle = rng.uniform(-self.level.turn, self.level.turn)
        for _ in range(TRIES):
            centre = self._candidate_centre(size)
            (x, y), mask = fill(place_outline(name, size, stretch, angle, centre))
            if self._accepts(x, y, mask):
                self._paint(x, y, mask, centre, CLASS_NAMES.index(name) if name in CLASS_NAMES else -1)
                return True
        return False

    def objects(self):
        """(class index, visible mask (H, W)) of every object, back to front; look-alikes are left out."""
        return [(c, self.owner == k) for k, c in enumerate(self.classes) if c >= 0]

    def pixels(self):
        """The finished picture (H, W, 3), uint8: sensor noise, mostly grey, goes over everything."""
        random = self.rng.randint(0, 64, (self.height, self.width, 1), dtype=np.uint8)  # 3 bits of grey, 1 a channel
        grey = (random & 7).astype(np.int16) - 4
        colour = (random >> np.array([3, 4, 5], dtype=np.uint8) & 1).astype(np.int16) * 2 - 1
        return (self.image + grey + colour).clip(0, 255).astype(np.uint8)

    def _candidate_centre(self, size):
        rng = self.rng
        if self.centres and rng.random_sample() < self.level.crowded:  # crowd around something that is there
            x, y, other = self.centres[rng.randint(len(self.centres))]
            reach, angle = (size + other) / 2 * rng.uniform(0.4, 1.1), rng.uniform(0, 2 * math.pi)
            return x + reach * math.cos(angle), y + reach * math.sin(angle)
        return rng.uniform(0, self.width), rng.uniform(0, self.height)

    def _inside(self, x, y, mask):
        """Slices of the picture and the part of ``mask`` that lies in it; the mask's first pixel is (x, y)."""
        height, width = mask.shape
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, self.width), min(y + height, self.height)
        if left >= right or top >= bottom:
            return None, None
        return (slice(top, bottom), slice(left, right)), mask[top - y:bottom - y, left - x:right - x]

    def _accepts(self, x, y, mask):
        window, inside = self._inside(x, y, mask)
        if window is None or inside.sum() < max(self.level.visible * mask.sum(), MIN_PIXELS):
            return False
        hidden = np.bincount(self.owner[window][inside] + 1, minlength=len(self.classes) + 1)[1:]
        left = np.array(self.visible_areas, dtype=np.int64) - hidden
        needed = np.maximum(np.array(self.full_areas) * self.level.visible, MIN_PIXELS)
        return bool(np.all((hidden == 0) | (left >= needed)))

    def _paint(self, x, y, mask, centre, class_index):
        window, inside = self._inside(x, y, mask)
        hidden = np.bincount(self.owner[window][inside] + 1, minlength=len(self.classes) + 1)[1:]
        self.visible_areas = [a - int(h) for a, h in zip(self.visible_areas, hidden)] + [int(inside.sum())]
        self.full_areas.append(int(mask.sum()))
        self.classes.append(class_index)
        self.centres.append((centre[0], centre[1], math.sqrt(mask.sum())))
        self.owner[window][inside] = len(self.classes) - 1
        self.image[window][inside] = _surface(self.rng, class_index, self.image[window], inside)


def _background(rng, width, height):
    """Coarse random colours close to grey, interpolated: int16 (height, width, 3)."""
    step = max(width, height) // 8
    cells = (height // step + 2, width // step + 2)
    grey, tint = rng.randint(-GREY, GREY + 1, (*cells, 1)), rng.randint(-TINT, TINT + 1, (*cells, 3))
    grid = (rng.randint(80, 176) + grey + tint).astype(np.int32)
    (row, below), (column, right) = np.divmod(np.arange(height), step), np.divmod(np.arange(width), step)
    below, right = below[:, None, None], right[:, None]
    rows = grid[row] * (step - below) + grid[row + 1] * below
    pixels = rows[:, column] * (step - right) + rows[:, column + 1] * right
    return (pixels // (step * step)).astype(np.int16)


def _surface(rng, class_index, patch, inside):
    """Colours (pixels of ``inside``, 3) of a new shape: near its class's, not that of what it covers, shaded.

    A look-alike takes the colour of any class, so the colour alone never makes an object.
    """
    covered = patch[inside].sum(0) // max(int(inside.sum()), 1)
    typical = COLOURS[class_index if class_index >= 0 else rng.randint(len(COLOURS))]
    for _ in range(COLOUR_TRIES):
        colour = typical + rng.randint(-COLOUR_SPREAD, COLOUR_SPREAD + 1, 3)
        if np.abs(colour - covered).sum() >= 3 * MIN_CONTRAST:
            break
    rows, columns = np.nonzero(inside)
    along = rows if rng.randint(2) else columns
    slope = rng.randint(-40, 41)
    return colour + (slope * along // (int(along.max()) + 1) - slope // 2)[:, None]


def _sizes(rng, count, size):
    """Sizes in pixels, on a log scale more large than small ones; the more objects, the lower the upper end."""
    largest = min(LARGEST, 1.6 / math.sqrt(max(count, 1)))
    return size * SMALLEST * np.exp(rng.random_sample(count) ** 0.35 * math.log(largest / SMALLEST))


def _plan(rng, size, look_alikes):
    """(name, size in pixels) of the shapes of one picture, in painting order: mostly large ones behind small ones."""
    count = 0 if rng.random_sample() < EMPTY_SHARE else 1 + int(MAX_OBJECTS * rng.random_sample() ** 1.5)
    names = [CLASS_NAMES[k] for k in rng.randint(len(CLASS_NAMES), size=count)]
    sizes = list(_sizes(rng, count, size))
    order = np.argsort([-s * math.exp(rng.uniform(-0.7, 0.7)) for s in sizes], kind="stable")
    return _look_alikes(rng, size, look_alikes) + [(names[k], float(sizes[k])) for k in order]


def _look_alikes(rng, size, most):
    """They come first, so that they are partly hidden by objects and hide none."""
    count = int((most + 1) * rng.random_sample() ** 2)
    sizes = np.maximum(_sizes(rng, count, size) / 2, SMALLEST_LOOK_ALIKE * size)
    return [(LOOK_ALIKES[rng.randint(len(LOOK_ALIKES))], float(s)) for s in sizes]


def paint_scene(seed, split, index, size=256, level="mild"):
    """The finished :class:`Scene` of picture ``index`` of a split; arguments as :func:`draw_scene`."""
    rng = np.random.RandomState([seed, split, index])
    width, height = (size, size * 3 // 4) if rng.random_sample() < LANDSCAPE else (size * 3 // 4, size)
    scene = Scene(rng, width, height, LEVELS[level])
    for name, shape_size in _plan(rng, size, scene.level.look_alikes):
        scene.add(name, shape_size)
    return scene


def draw_scene(seed, split, index, size=256, level="mild"):
    """Picture ``index`` of a split: ``(pixels (H, W, 3) uint8 RGB, [(class index, visible mask (H, W))])``.

    ``size`` is the longer side in pixels, the other one is 3/4 of it. ``seed``, ``split`` and ``index`` are integers
    from 0; the picture does not depend on how many others there are. ``level`` is a name of :data:`LEVELS`.
    """
    scene = paint_scene(seed, split, index, size, level)
    return scene.pixels(), scene.objects()
