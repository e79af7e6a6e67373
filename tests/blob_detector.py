"""A detector of bright rectangles that needs no training, and images of them."""

import numpy as np
import torch
from d2_balanced.data.image_file import read_image
from detectron2.data.transforms import AugInput, ResizeShortestEdge
from detectron2.structures import Boxes, Instances
from torch import nn


class Blobs(nn.Module):
    """A detector that finds every bright blob it is shown, be it cut or not; the more of it, the surer it is.

    It answers in the size ``height``, ``width`` of the image that its input was made of, as detectron2's models do.
    """

    test_nms_thresh, max_detections_per_image = 0.5, 100

    def __init__(self, least=1):
        super().__init__()
        self.least = least  # pixels of a blob's area, in the input: smaller ones are not seen
        self.sizes = []

    def forward(self, inputs):
        self.sizes.append([tuple(each["image"].shape[1:]) for each in inputs])
        return [{"instances": self._find(each)} for each in inputs]

    def _find(self, given):
        height, width = given["height"], given["width"]
        pixels = given["image"][0].numpy() > 128
        boxes, masks = [], []
        for y, x in zip(*np.nonzero(pixels)):
            if (y and pixels[y - 1, x]) or (x and pixels[y, x - 1]):
                continue  # not the upper left corner of a rectangle
            y2, x2 = y, x
            while y2 < pixels.shape[0] and pixels[y2, x]:
                y2 += 1
            while x2 < pixels.shape[1] and pixels[y, x2]:
                x2 += 1
            if (y2 - y) * (x2 - x) >= self.least:
                boxes.append([x, y, x2, y2])
                masks.append(np.zeros(pixels.shape, bool))
                masks[-1][y:y2, x:x2] = True
        found = Instances((height, width))
        scale = torch.tensor([width / pixels.shape[1], height / pixels.shape[0]] * 2)
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) * scale)
        found.scores = 0.9 + found.pred_boxes.area() / 1e6
        found.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
        if tuple(pixels.shape) == (height, width):
            found.pred_masks = torch.as_tensor(np.array(masks).reshape(-1, height, width))
        return found


class Mapper:
    """As a DatasetMapper of RGB images, which ``short_edge`` pixels high or wide; 0: as they are."""

    image_format = "RGB"

    def __init__(self, short_edge=0):
        self.augmentations = ResizeShortestEdge(short_edge, 10_000) if short_edge else lambda given: given

    def __call__(self, record):
        pixels = read_image(record["file_name"], format="RGB")
        given = AugInput(pixels)
        self.augmentations(given)
        image = torch.as_tensor(np.ascontiguousarray(given.image.transpose(2, 0, 1)))
        return {"image": image, "height": pixels.shape[0], "width": pixels.shape[1]}


def picture(rectangles, size):
    pixels = np.zeros((*size, 3), np.uint8)
    for x1, y1, x2, y2 in rectangles:
        pixels[y1:y2, x1:x2] = 255
    return pixels
