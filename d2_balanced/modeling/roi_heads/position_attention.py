"""Attention by content of the query and relative position of the key, as GRoIE uses it.

The second of the four terms in Zhu et al., An Empirical Study of Spatial Attention Mechanisms in Deep Networks, ICCV 2019.

Shape shorthand: R: RoIs; C: channels; M: heads; d: channels a head; h, w: queries; hk, wk: keys, every s-th position.
"""

import fvcore.nn.weight_init as weight_init
import torch
from torch import nn

from ...utils.numbers import require

__all__ = ["PositionAttention", "sinusoids"]


def sinusoids(num_queries, num_keys, stride, channels, wave_length=1000.0):
    """Sines and cosines of the distance of every query from every key along one axis.

    Args:
        stride: query ``i`` is at position ``i``, key ``j`` at ``stride * j``.
        channels: an even number; frequencies fall from 1 to nearly ``1 / wave_length``.

    Returns (num_queries, num_keys, channels): all sines, then all cosines.
    """
    distance = torch.arange(num_queries)[:, None] - stride * torch.arange(num_keys)[None]
    frequencies = wave_length ** (-torch.arange(channels // 2) / (channels // 2))
    angles = distance[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PositionAttention(nn.Module):
    """``x + gamma * out(attention(x) value(x))``: what a query is decides where it looks, not what is there.

    With q of a query at (y, x) and embeddings e of distances, the logit for a key at (v, u) is
    ``q . (Wx e(x - u) + Wy e(y - v)) / sqrt(2)``. It is a sum of a term by column and one by row, so the softmax over
    all keys is the product of those over columns and over rows.

    Args:
        channels: C, a multiple of 4.
        size: (h, w).
        num_heads: M; each has ``C // M`` channels.
        key_stride: keys and values are at every so many-th row and column.

    ``gamma`` starts at 0: the block starts as the identity. Raises ``ValueError`` for a setting out of range.
    """

    def __init__(self, channels, size, num_heads=6, key_stride=2):
        super().__init__()
        if channels % 4 or not 1 <= num_heads <= channels:
            raise ValueError(
                f"PositionAttention: channels must be a multiple of 4 and num_heads between 1 and channels, got "
                f"{channels} and {num_heads}"
            )
        require(self, "key_stride", key_stride, at_least=1, integer=True)
        self.num_heads, self.key_stride = num_heads, key_stride
        inner = channels // num_heads * num_heads
        self.query = nn.Conv2d(channels, inner, 1, bias=False)
        self.value = nn.Conv2d(channels, inner, 1, bias=False)
        self.rows = nn.Linear(channels // 2, inner, bias=False)
        self.columns = nn.Linear(channels // 2, inner, bias=False)
        self.out = nn.Conv2d(inner, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))
        for layer in (self.query, self.value, self.rows, self.columns):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        weight_init.c2_xavier_fill(self.out)
        for name, length in zip(("row_distances", "column_distances"), size):
            distances = sinusoids(length, -(-length // key_stride), key_stride, channels // 2)
            self.register_buffer(name, distances, persistent=False)

    def forward(self, x):
        """(R, C, h, w) -> (R, C, h, w)."""
        query = self.query(x).unflatten(1, (self.num_heads, -1)) * 0.5**0.5  # (R, M, d, h, w)
        rows = self._weights("rmdyx,yvmd->rmyxv", query, self.rows(self.row_distances))
        columns = self._weights("rmdyx,xumd->rmyxu", query, self.columns(self.column_distances))
        weights = (rows.unsqueeze(-1) * columns.unsqueeze(-2)).flatten(4).flatten(2, 3)  # (R, M, h w, hk wk)
        value = self.value(x[:, :, :: self.key_stride, :: self.key_stride])
        value = value.unflatten(1, (self.num_heads, -1)).flatten(3)  # (R, M, d, hk wk)
        gathered = value @ weights.transpose(-2, -1)  # (R, M, d, h w)
        return x + self.gamma * self.out(gathered.flatten(1, 2).unflatten(2, x.shape[-2:]))

    def _weights(self, equation, query, positions):
        """Softmax, along one axis of the keys, of the logits of queries and embedded distances (h or w, keys, M d)."""
        return torch.einsum(equation, query, positions.unflatten(2, (self.num_heads, -1))).softmax(dim=-1)
