"""Attention in windows (Swin) with prompts that every window reads, projected once per batch.

The textbook copies the prompts into each window of each image. Here their keys and values exist once: the queries of
all windows attend to them in one long row, in addition to the attention within each window.
"""

from typing import Any

import torch
from timm.layers import use_fused_attn
from torch import Tensor, nn

from vpt.attention.forward_state import ForwardState
from vpt.attention.joint_attention import GatedPrompts, KeyValues, attend_with_prompts, keys_and_values, weigh_values
from vpt.attention.projections import project, project_output


def attend_windows(
    module: nn.Module,
    x: Tensor,
    *,
    mask: Tensor | None = None,
    kv_prompts: Tensor | GatedPrompts | KeyValues | None = None,
    return_prompt_outputs: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute Swin's attention exactly as its own forward does, with prompts in addition to each window's tokens.

    Args:
        module: The window attention module.
        x: Tokens (batch * windows, n, d), already normalized.
        mask: Mask of shifted windows, (windows, n, n). Default: none.
        kv_prompts: Prompts (p, d) or (batch, p, d), already normalized, `GatedPrompts` or `KeyValues`; they have
            neither relative bias nor mask. Default: none.
        return_prompt_outputs: Compute the outputs of prompts (batch, p, d) too, which are not gated: the mean over
            the windows of each image. Default: False.

    Returns:
        The output of the tokens (batch * windows, n, d), and that of the prompts (batch, p, d) or None.
    """
    attention: Any = module
    kv_prompts, gate = kv_prompts if isinstance(kv_prompts, GatedPrompts) else (kv_prompts, None)
    n = x.shape[1]
    q, k, v = project(attention, x, "qkv")
    bias = attention._get_rel_pos_bias()
    if mask is not None:
        window_bias = bias + mask.unsqueeze(1)  # (windows, heads, n, n)
        bias = window_bias.expand(x.shape[0] // len(mask), -1, -1, -1, -1).flatten(0, 1)
    dropout = attention.attn_drop.p if attention.training else 0.0
    # timm's own flag of the module is False unless experimental fusion is asked for.
    options = {"scale": attention.scale, "bias": bias, "dropout": dropout, "fused": use_fused_attn()}
    if kv_prompts is None:
        out = weigh_values(q, k, v, **options)
        return project_output(attention, x, out), None

    if isinstance(kv_prompts, KeyValues):
        prompt_k, prompt_v = keys_and_values(attention, kv_prompts)
    else:
        prompt_q, prompt_k, prompt_v = project(attention, kv_prompts, "qkv", hooks=False)
    out = attend_with_prompts(q, k, v, prompt_k, prompt_v, gate=gate, **options)
    out = project_output(attention, x, out)
    if not return_prompt_outputs or isinstance(kv_prompts, KeyValues):
        return out, None

    batch = prompt_q.shape[0]
    scaled_q = prompt_q * attention.scale
    k, v = k.unflatten(0, (batch, -1)), v.unflatten(0, (batch, -1))  # (batch, windows, heads, n, d/heads)
    token_scores = scaled_q.unsqueeze(1) @ k.transpose(-2, -1)
    prompt_scores = (scaled_q @ prompt_k.transpose(-2, -1)).unsqueeze(1).expand(-1, k.shape[1], -1, -1, -1)
    weights = attention.attn_drop(torch.cat([token_scores, prompt_scores], dim=-1).softmax(-1))
    prompt_out = weights[..., :n] @ v + weights[..., n:] @ prompt_v.unsqueeze(1)
    return out, project_output(attention, kv_prompts, prompt_out.mean(dim=1), hooks=False)


class KVWindowAttention(nn.Module):
    """Replacement of Swin's window attention with prompts as keys and values.

    Args:
        attention: The window attention module.
        kv_prompts: Module that maps the normalized tokens (batch * windows, n, d) to prompts (p, d), (batch, p, d),
            `GatedPrompts` or `KeyValues`.
    """

    def __init__(self, attention: nn.Module, kv_prompts: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.kv_prompts = kv_prompts

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the output of attention.

        Args:
            x: Tokens (batch * windows, n, d), already normalized.
            mask: Mask of shifted windows, (windows, n, n). Default: none.

        Returns:
            The output (batch * windows, n, d).
        """
        return attend_windows(self.attention, x, mask=mask, kv_prompts=self.kv_prompts(x))[0]


class PromptedWindowAttention(nn.Module):
    """Replacement of Swin's window attention where prompts pass through the block as tokens.

    The forward of the block has no argument for prompts, so the caller sets them with `set_prompts` before the block
    runs, and takes their outputs with `pop_prompts` after.

    Args:
        attention: The window attention module.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self._prompts: ForwardState[Tensor] = ForwardState()

    def set_prompts(self, prompts: Tensor) -> None:
        """Set the prompts of the next call.

        Args:
            prompts: Prompts (batch, p, d), already normalized.
        """
        self._prompts.set(prompts)

    def pop_prompts(self) -> Tensor:
        """Return the outputs of the prompts, (batch, p, d), and forget them."""
        return self._prompts.pop()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the output of attention for the tokens.

        Args:
            x: Tokens (batch * windows, n, d), already normalized.
            mask: Mask of shifted windows, (windows, n, n). Default: none.

        Returns:
            The output (batch * windows, n, d).
        """
        out, prompt_out = attend_windows(
            self.attention, x, mask=mask, kv_prompts=self._prompts.pop(), return_prompt_outputs=True
        )
        assert prompt_out is not None
        self._prompts.set(prompt_out)
        return out
