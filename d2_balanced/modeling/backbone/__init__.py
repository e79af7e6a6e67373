"""Seat 1: what turns an image into the feature pyramid."""

from . import build, deform_conv  # noqa: F401  (registers the backbones, lends an operator)
from .balanced_fpn import BalancedFeatures, BalancedFPN, BalancedPAFPN
from .context_block import ContextBlock, add_context_blocks
from .non_local import NonLocalBlock
from .pafpn import PAFPN

__all__ = [
    "BalancedFeatures",
    "BalancedFPN",
    "BalancedPAFPN",
    "ContextBlock",
    "NonLocalBlock",
    "PAFPN",
    "add_context_blocks",
]
