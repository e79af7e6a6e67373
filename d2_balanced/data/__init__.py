"""Data sets: generated, COCO format by path, VOC evaluated COCO-style, CrowdHuman; checks that run before training."""

from .builtin import register_all

register_all()
