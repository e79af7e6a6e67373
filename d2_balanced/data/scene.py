"""One picture of the generated data set: a pure function of (seed, split, index, size).

What makes it a detection problem: 1 to 20 objects over the whole range of a feature pyramid, which hide parts of each
other; the colour says nothing about the class; look-alikes that belong to no class; pictures without any object.
All randomness comes from ``numpy.random.RandomState``, whose streams are frozen over NumPy's versions, and all painting
is integer arithmetic, so a seed gives the same pixels everywhere.
"""

import math

import numpy as np

from .outlines import CLASS_NAMES, LOOK_ALIKES, place_outline
from .raster import fill

__all__ = ["Scene", "paint_scene", "draw_scene"]

MAX_OBJECTS = 20
SMALLEST, LARGEST = 8 / 256, 200 / 256  # size of a shape over the picture's side
SMALLEST_LOOK_ALIKE = 20 / 256  # below that nobody could tell it from a class
EMPTY_SHARE = 0.06  # of pictures; they still have look-alikes
MIN_VISIBLE = 0.6  # of a shape's whole area: nothing that is hidden more than that has to be found
MIN_PIXELS = 20
MIN_CONTRAST = 36  # mean absolute difference over the three channels, of 255
COLOURS = np.array([(200, 60, 60), (60, 170, 60), (60, 80, 210), (210, 190, 50), (180, 70, 190)])  # of the classes
COLOUR_SPREAD = 45  # around them: neighbours overlap
TINT = 25  # of the background
MAX_TURN = 0.4  # radians
CROWDED = 0.3
GREY = 45
NOISE = 16
LOOK = 1
SKEW = 0.7
CSKEW = 1.0
TRIES = 25


class Scene:
    """A picture being painted, back to front, and what is where in it.

    Attributes:
        image: int16 (H, W, 3), RGB, clipped to 0..255 only at the end.
        owner: int16 (H, W), index of the shape that is visible in a pixel, -1 for the background.
        classes: class index of each shape, -1 for a look-alike.
        full_areas, visible_areas: pixels of each shape, hidden and outside ones included, and those to be seen.
    """

    def __init__(self, rng, size):
        self.rng = rng
        self.size = size
        self.image = _background(rng, size)
        self.owner = np.full((size, size), -1, dtype=np.int16)
        self.classes, self.full_areas, self.visible_areas, self.centres = [], [], [], []

    def add(self, name, size):
        """Puts a shape in front of what is there, where it hides nothing too much; False if no place was found."""
        rng = self.rng
        stretch, angle = math.exp(rng.uniform(-0.5, 0.5)), rng.uniform(-MAX_TURN, MAX_TURN)
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
        random = self.rng.randint(0, 256, (self.size, self.size, 1), dtype=np.uint8)  # 5 bits of grey, 1 a channel
        grey = ((random & 31).astype(np.int16) - 16) * NOISE // 16
        colour = (random >> np.array([5, 6, 7], dtype=np.uint8) & 1).astype(np.int16) * 8 - 4
        return (self.image + grey + colour).clip(0, 255).astype(np.uint8)

    def _candidate_centre(self, size):
        rng = self.rng
        if self.centres and rng.random_sample() < CROWDED:  # crowd around something that is there
            x, y, other = self.centres[rng.randint(len(self.centres))]
            reach, angle = (size + other) / 2 * rng.uniform(0.4, 1.1), rng.uniform(0, 2 * math.pi)
            return x + reach * math.cos(angle), y + reach * math.sin(angle)
        return rng.uniform(0, self.size), rng.uniform(0, self.size)

    def _inside(self, x, y, mask):
        """Slices of the picture and the part of ``mask`` that lies in it; the mask's first pixel is (x, y)."""
        height, width = mask.shape
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, self.size), min(y + height, self.size)
        if left >= right or top >= bottom:
            return None, None
        return (slice(top, bottom), slice(left, right)), mask[top - y:bottom - y, left - x:right - x]

    def _accepts(self, x, y, mask):
        window, inside = self._inside(x, y, mask)
        if window is None or inside.sum() < max(MIN_VISIBLE * mask.sum(), MIN_PIXELS):
            return False
        hidden = np.bincount(self.owner[window][inside] + 1, minlength=len(self.classes) + 1)[1:]
        left = np.array(self.visible_areas, dtype=np.int64) - hidden
        needed = np.maximum(np.array(self.full_areas) * MIN_VISIBLE, MIN_PIXELS)
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


def _background(rng, size):
    """Coarse random colours close to grey, interpolated: int16 (size, size, 3)."""
    step = max(size // 8, 1)
    cells = size // step + 2
    grey, tint = rng.randint(-GREY, GREY+1, (cells, cells, 1)), rng.randint(-TINT, TINT + 1, (cells, cells, 3))
    grid = (rng.randint(80, 176) + grey + tint).astype(np.int32)
    low, far = np.divmod(np.arange(size), step)
    rows = grid[low] * (step - far)[:, None, None] + grid[low + 1] * far[:, None, None]
    both = rows[:, low] * (step - far)[:, None] + rows[:, low + 1] * far[:, None]
    return (both // (step * step)).astype(np.int16)


def _surface(rng, class_index, patch, inside):
    """Colours (pixels of ``inside``, 3) of a new shape: near its class's, not that of what it covers, shaded.

    A look-alike takes the colour of any class, so the colour alone never makes an object.
    """
    covered = patch[inside].sum(0) // max(int(inside.sum()), 1)
    typical = COLOURS[class_index if class_index >= 0 else rng.randint(len(COLOURS))]
    while True:
        colour = typical + rng.randint(-COLOUR_SPREAD, COLOUR_SPREAD + 1, 3)
        if np.abs(colour - covered).sum() >= 3 * MIN_CONTRAST:
            break
    rows, columns = np.nonzero(inside)
    along = rows if rng.randint(2) else columns
    slope = rng.randint(-40, 41)
    return colour + (slope * along // (int(along.max()) + 1) - slope // 2)[:, None]


def _sizes(rng, count, size):
    """Sizes in pixels, log-uniform; the more objects there are, the lower the upper end."""
    largest = min(LARGEST, 1.6 / math.sqrt(max(count, 1)))
    share = rng.random_sample(count) ** SKEW
    return size * SMALLEST * np.exp(share * math.log(largest / SMALLEST))


def _plan(rng, size):
    """(name, size in pixels) of the shapes of one picture, in painting order: mostly large ones behind small ones."""
    count = 0 if rng.random_sample() < EMPTY_SHARE else 1 + int(MAX_OBJECTS * rng.random_sample() ** CSKEW)
    names = [CLASS_NAMES[k] for k in rng.randint(len(CLASS_NAMES), size=count)]
    sizes = list(_sizes(rng, count, size))
    for k in rng.randint(len(LOOK_ALIKES), size=LOOK * rng.randint(0, 3 + count // 4)):
        names.append(LOOK_ALIKES[k])
        sizes.append(max(float(_sizes(rng, 1, size)[0]) / 2, SMALLEST_LOOK_ALIKE * size))
    order = np.argsort([-s * math.exp(rng.uniform(-0.7, 0.7)) for s in sizes], kind="stable")
    return [(names[k], float(sizes[k])) for k in order]


def paint_scene(seed, split, index, size=256):
    """The finished :class:`Scene` of picture ``index`` of a split; arguments as :func:`draw_scene`."""
    rng = np.random.RandomState([seed, split, index])
    scene = Scene(rng, size)
    for name, shape_size in _plan(rng, size):
        scene.add(name, shape_size)
    return scene


def draw_scene(seed, split, index, size=256):
    """Picture ``index`` of a split: ``(pixels (size, size, 3) uint8 RGB, [(class index, visible mask (size, size))])``.

    ``seed``, ``split`` and ``index`` are integers from 0; the picture does not depend on how many others there are.
    """
    scene = paint_scene(seed, split, index, size)
    return scene.pixels(), scene.objects()
