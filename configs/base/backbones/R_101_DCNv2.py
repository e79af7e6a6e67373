from .R_101 import pretrained
from .resnet import deformable_resnet

# Needs a detectron2 with compiled operators.
bottom_up = deformable_resnet(101, modulated=True)
