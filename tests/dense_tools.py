"""A toy for the tests of dense detectors: two feature levels, images of 64 x 96 pixels with up to three classes."""

import torch
from detectron2.modeling import Backbone
from detectron2.structures import Boxes, Instances
from torch import nn

K, SIZE = 3, (64, 96)


class ToyBackbone(Backbone):
    """Two levels, 4 channels."""

    def __init__(self):
        super().__init__()
        self.p3 = nn.Conv2d(3, 4, 3, stride=8, padding=1)
        self.p4 = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self._out_features = ["p3", "p4"]
        self._out_feature_channels = {"p3": 4, "p4": 4}
        self._out_feature_strides = {"p3": 8, "p4": 16}

    def forward(self, x):
        p3 = self.p3(x)
        return {"p3": p3, "p4": self.p4(p3)}


def image(*boxes, seed=0):
    instances = Instances(SIZE)
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.arange(len(boxes)) % K
    pixels = torch.randint(0, 256, (3, *SIZE), generator=torch.Generator().manual_seed(seed))
    return {"image": pixels.float(), "instances": instances}


OBJECTS = [image((5, 5, 30, 25), (40, 10, 60, 50)), image((0, 0, 90, 60), seed=1)]
