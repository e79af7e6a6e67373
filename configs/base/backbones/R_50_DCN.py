from .R_50 import pretrained
from .resnet import deformable_resnet

# Needs a detectron2 with compiled operators.
bottom_up = deformable_resnet(50, modulated=False)
