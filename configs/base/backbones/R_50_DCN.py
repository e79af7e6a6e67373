from .R_50 import pretrained
from .resnet import deformable_resnet

bottom_up = deformable_resnet(50, modulated=False)
