from .R_101 import pretrained
from .resnet import deformable_resnet

bottom_up = deformable_resnet(101, modulated=True)
