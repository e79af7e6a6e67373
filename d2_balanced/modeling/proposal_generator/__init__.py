"""Proposal generators with components at their seats."""

from .rpn import BalancedRPN

__all__ = ["BalancedRPN"]
