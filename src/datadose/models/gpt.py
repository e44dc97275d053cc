"""The paper's nonlinear transformer (section 8, after Garg et al. 2022): a decoder-only GPT-2 of regressions.

A prompt is a sequence of tokens of dimension d+1: x_1, y_1, .., x_n, y_n, written (x_i, 0) and
(y_i, 0, .., 0, 0), then thoughts (w_j, 1), w_0 = 0 first. There is no token table: tokens are read in
linearly, positions are learned, and the linear read-out at thought j is the next thought w_{j+1}. Blocks are
GPT-2's: pre-norm, causal softmax attention, tanh-GELU, a final LayerNorm.

What makes it fast changes no number beyond rounding: the k+1 forced steps of SFT are one causal pass; a chain
is thought with cached keys and values, through which gradients flow; the last block works on thoughts alone,
which nothing after it needs the prompt for; :mod:`~datadose.models.gpt_operations` has the parts of a block.

Runs are not leading dimensions of the parameters, as they are in linear attention: one model serves all
leading dimensions ``*runs`` of a batch, and results keep them.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from datadose.errors import InputError, reject, require_choice, require_integer
from datadose.models.gpt_operations import attend, softmax_weights, tanh_gelu
from datadose.models.linear_attention import ChainModel, chain_decay
from datadose.models.prompt_batch import PerRun, PromptBatch, Thoughts
from datadose.shapes import Float
from datadose.tensor_files import read_tensors, write_tensors

PRESETS: dict[str, tuple[int, int, int]] = {
    "paper": (12, 8, 256),
    "small": (6, 4, 128),
    "tiny": (4, 4, 64),
}
"""Layers, heads and width: 9.5, 1.2 and 0.2 million parameters. ``paper`` and ``small`` are Garg's too."""

_STD = 0.02
"""GPT-2's scale of initial weights."""


@dataclass(frozen=True)
class GptConfig:
    """The architecture.

    Args:
        dimension: d >= 1 of inputs and weights; tokens have d+1 entries.
        layers: blocks >= 1.
        heads: attention heads >= 1.
        width: of the residual stream, a multiple of ``heads``.
        positions: the largest number of tokens, 2n for a prompt and one a thought.
    """

    dimension: int
    layers: int
    heads: int
    width: int
    positions: int

    def __post_init__(self) -> None:
        for entry in fields(self):
            # Three tokens: one example and w_0.
            minimum = 3 if entry.name == "positions" else 1
            require_integer(entry.name, getattr(self, entry.name), minimum)
        if self.width % self.heads:
            reject("width", self.width, f"a multiple of the number of heads, {self.heads}")

    @classmethod
    def preset(cls, name: str, dimension: int, length: int, chain_steps: int) -> GptConfig:
        """A named size, with positions for prompts of ``length`` n and chains of k = ``chain_steps``."""
        require_choice("preset", name, PRESETS)
        n, k = require_integer("length", length, 1), require_integer("chain_steps", chain_steps, 0)
        layers, heads, width = PRESETS[name]
        return cls(dimension, layers, heads, width, 2 * n + k + 1)


class _Cache:
    """Keys and values of a block: of the prompt, as one piece that is never copied, and of later thoughts."""

    def __init__(self) -> None:
        self.prompt: tuple[Tensor, Tensor] | None = None
        self.later: tuple[Tensor, Tensor] | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As :func:`attend`, of all tokens first, then of one new token at a time."""
        new = k.flatten(0, 1), v.flatten(0, 1)
        if self.prompt is None:
            self.prompt = new
            return attend(q, k, v)
        if self.later is not None:
            new = torch.cat([self.later[0], new[0]], dim=1), torch.cat([self.later[1], new[1]], dim=1)
        self.later = k, v = new
        K, V = self.prompt
        scaled = q.flatten(0, 1) / math.sqrt(q.shape[-1])
        scores = [torch.bmm(scaled, keys.transpose(1, 2)) for keys in (K, k)]
        weights = softmax_weights(torch.cat(scores, dim=-1), V)
        seen = torch.bmm(weights[..., : K.shape[1]], V) + torch.bmm(weights[..., K.shape[1] :], v)
        return seen.view(q.shape)


class Block(nn.Module):
    """A pre-norm GPT-2 block: x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(
        self, x: Float[Tensor, "B T width"], keep: int, cache: _Cache | None = None
    ) -> Float[Tensor, "B {keep} width"]:
        """The last ``keep`` of T tokens, from all of them."""
        h, C = self.attention_norm(x), x.shape[-1]
        if keep == x.shape[1]:
            q, k, v = self._split(self.qkv(h))
        else:
            x = x[:, -keep:]
            (q,) = self._split(self._part_of_qkv(h[:, -keep:], slice(None, C)))
            k, v = self._split(self._part_of_qkv(h, slice(C, None)))
        seen = attend(q, k, v) if cache is None else cache.attend(q, k, v)
        x = x + self.mix(seen.transpose(1, 2).reshape(x.shape))
        return x + cast("Tensor", self.down(tanh_gelu(self.up(self.mlp_norm(x)))))

    def _part_of_qkv(self, h: Tensor, outputs: slice) -> Tensor:
        """Some outputs of the joint map to queries, keys and values."""
        return functional.linear(h, self.qkv.weight[outputs], self.qkv.bias[outputs])

    def _split(self, joint: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys, values, each (B, heads, T, D), of what is (B, T, parts * width)."""
        B, T, _ = joint.shape
        D = self.mix.in_features // self.heads
        return joint.view(B, T, -1, self.heads, D).permute(2, 0, 3, 1, 4).unbind(0)


class GptModel(ChainModel):
    """The transformer, with parameters in float32 (``.double()`` for identities), drawn from ``seed``.

    Weights are N(0, 0.02^2), those that write to the residual stream 1/sqrt(2 layers) of that, biases 0.
    Read-in and read-out have the scale of Garg's (torch's for a Linear), standard deviation
    1/sqrt(3 fan-in): at 0.02 learning was slower in a probe (one seed, d = 5).
    Under ``torch.autocast`` blocks run in the low precision; read-in, norms, softmax and read-out do not.

    Raises:
        InputError: from all methods, for batches without inputs X, of another dimension or dtype, or longer
            than ``positions``.
    """

    def __init__(self, config: GptConfig, *, seed: int) -> None:
        super().__init__()
        self.config = config
        d, C = config.dimension, config.width
        generator = torch.Generator().manual_seed(require_integer("seed", seed, 0))
        self.read_in = nn.Linear(d + 1, C)
        self.positions = nn.Parameter(torch.empty(config.positions, C))
        self.blocks = nn.ModuleList(Block(C, config.heads) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(C)
        self.read_out = nn.Linear(C, d)
        with torch.no_grad():
            self.positions.normal_(0, _STD, generator=generator)
            for name, module in self.named_modules():
                if isinstance(module, nn.Linear):
                    onto_stream = name.endswith((".mix", ".down"))
                    std = _STD / math.sqrt(2 * config.layers) if onto_stream else _STD
                    if module in (self.read_in, self.read_out):
                        std = 1 / math.sqrt(3 * module.in_features)
                    module.weight.normal_(0, std, generator=generator)
                    module.bias.zero_()

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights of all linear maps inside the blocks."""
        return [cast("nn.Parameter", m.weight) for m in self.blocks.modules() if isinstance(m, nn.Linear)]

    def effective_operator(self) -> None:
        """None, since a thought is no linear function of S w*."""
        return

    def teacher_forced_loss(self, batch: PromptBatch, eta: float, steps: int) -> PerRun:
        """See :class:`ChainModel`: one pass over the prompt and w_0 .. w_k, whose outputs are k+1 targets."""
        decay = chain_decay(eta, require_integer("steps", steps, 0))
        # Made where the weights are: a list would be sent there, and a recorded step sends nothing.
        c = torch.stack([batch.weights.new_full((), c_i) for c_i in decay])
        chain = batch.weights.unsqueeze(-2) * c.unsqueeze(-1)
        residual = self._means(batch, chain[..., :-1, :]) - chain[..., 1:, :]
        return residual.square().sum(dim=(-1, -2, -3)) / (2 * batch.prompts)

    def next_means(self, batch: PromptBatch, thoughts: Thoughts) -> Thoughts:
        """See :class:`ChainModel`; one pass."""
        if thoughts.shape[-2] == 0:
            reject("thoughts", tuple(thoughts.shape), "one or more thoughts, (..., B, k, d)")
        start = torch.zeros_like(thoughts[..., :1, :])
        return self._means(batch, torch.cat([start, thoughts[..., :-1, :]], dim=-2))

    def rollout(self, batch: PromptBatch, steps: int, noise: Thoughts | None = None) -> Thoughts:
        """See :class:`ChainModel`: prompt and w_0 in one pass, then one token a thought; differentiable."""
        k = require_integer("steps", steps, 1)
        wanted = (*batch.weights.shape[:-1], k, batch.weights.shape[-1])
        if noise is not None and noise.shape != wanted:
            reject("noise", f"shape {tuple(noise.shape)}", f"shape {wanted}")
        noise = None if noise is None else noise.flatten(0, -3)
        tokens = self._prompt_tokens(batch, k)
        place, thoughts = tokens.shape[1], []
        caches = [_Cache() for _ in self.blocks]
        w = tokens.new_zeros(len(tokens), 1, self.config.dimension)
        for i in range(k):
            new = torch.cat([tokens, _thought_tokens(w)], dim=1) if i == 0 else _thought_tokens(w)
            w = self._forward(new, place + i + 1 - new.shape[1], 1, caches)
            w = w if noise is None else w + noise[:, i : i + 1]
            thoughts.append(w)
        return torch.cat(thoughts, dim=1).view(wanted)

    def _means(self, batch: PromptBatch, thoughts: Thoughts) -> Thoughts:
        """The model's output at each of the thoughts w_0, w_1, .."""
        d, m = self.config.dimension, thoughts.shape[-2]
        tokens = self._prompt_tokens(batch, m)
        if thoughts.shape[:-2] != batch.weights.shape[:-1] or thoughts.shape[-1] != d:
            allowed = f"shape {(*batch.weights.shape[:-1], m, d)}"
            reject("thoughts", f"shape {tuple(thoughts.shape)}", allowed)
        tokens = torch.cat([tokens, _thought_tokens(thoughts.reshape(-1, m, d))], dim=1)
        return self._forward(tokens, 0, m, None).view(thoughts.shape)

    def _forward(self, tokens: Tensor, first: int, keep: int, caches: list[_Cache] | None) -> Tensor:
        """Outputs (B, keep, d) at the last of the tokens (B, T, d+1), which stand at ``first``, .."""
        T, last = tokens.shape[1], len(self.blocks) - 1
        # The two ends are cheap, and carry the regression's digits: never in low precision.
        with torch.autocast(tokens.device.type, enabled=False):
            x = self.read_in(tokens) + self.positions[first : first + T]
        for place, block in enumerate(self.blocks):
            cache = None if caches is None else caches[place]
            x = block(x, keep if place == last else T, cache)
        with torch.autocast(tokens.device.type, enabled=False):
            return cast("Tensor", self.read_out(self.final_norm(x)))

    def _prompt_tokens(self, batch: PromptBatch, thoughts: int) -> Tensor:
        """x_1, y_1, .., x_n, y_n as (prod(...) B, 2n, d+1), after checks that the batch fits the model."""
        X, d = batch.held_inputs(), self.config.dimension
        if X.shape[-1] != d or X.shape[:-2] != batch.weights.shape[:-1] or batch.weights.shape[-1] != d:
            shown = f"inputs {tuple(X.shape)}, weights {tuple(batch.weights.shape)}"
            reject("batch", shown, f"inputs (..., B, n, {d}), weights (..., B, {d})")
        if X.dtype != self.positions.dtype:
            reject("batch", X.dtype, f"the dtype of the model, {self.positions.dtype}")
        n = X.shape[-2]
        if n < 1 or 2 * n + thoughts > self.config.positions:
            room = f"at least one example and at most {self.config.positions} tokens (positions)"
            reject("length", f"n = {n} with {thoughts} thoughts ({2 * n + thoughts} tokens)", room)
        tokens = X.new_zeros(math.prod(X.shape[:-2]), n, 2, d + 1)
        tokens[:, :, 0, :d] = X.reshape(-1, n, d)
        tokens[:, :, 1, 0] = batch.labels().reshape(-1, n)
        return tokens.flatten(1, 2)


def _thought_tokens(w: Tensor) -> Tensor:
    """(w, 1) for each w of (B, m, d)."""
    return torch.cat([w, torch.ones_like(w[..., :1])], dim=-1)


def gpt2_shape(model: GptModel) -> dict[str, Any]:
    """The arguments of Hugging Face's ``GPT2Config`` for :func:`gpt2_state`.

    There is no dropout, and the token table has one entry.
    """
    c = model.config
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    sizes = {"n_positions": c.positions, "n_embd": c.width, "n_layer": c.layers, "n_head": c.heads}
    return {"vocab_size": 1, **sizes, **dropouts}


def gpt2_state(model: GptModel) -> dict[str, Tensor]:
    """The blocks, positions and final norm under the names and layouts of Hugging Face's ``GPT2Model``.

    Read-in and read-out have no place there; the token table ``wte.weight`` is not used.
    """
    names = {
        "attention_norm": "ln_1",
        "qkv": "attn.c_attn",
        "mix": "attn.c_proj",
        "mlp_norm": "ln_2",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    }
    state = {"wpe.weight": model.positions.detach()}
    for end, tensor in model.final_norm.state_dict().items():
        state[f"ln_f.{end}"] = tensor
    for place, block in enumerate(model.blocks):
        for name, theirs in names.items():
            module = block.get_submodule(name)
            for end, tensor in module.state_dict().items():
                # Their Conv1D holds the transpose of a Linear.
                state[f"h.{place}.{theirs}.{end}"] = tensor.T.contiguous() if tensor.ndim == 2 else tensor
    return state


def save_gpt(path: Path, model: GptModel) -> None:
    """Write ``model`` and its configuration to ``path`` (safetensors), whole or not at all."""
    write_tensors(path, model.state_dict(), {"gpt": json.dumps(asdict(model.config))})


def load_gpt(path: Path) -> GptModel:
    """The model that :func:`save_gpt` wrote to ``path``, in its dtype.

    Raises InputError for a file that is missing, damaged or does not match its configuration.
    """
    tensors, metadata = read_tensors(path, "weights")
    try:
        config = GptConfig(**json.loads(metadata.get("gpt", "null")))
    except (json.JSONDecodeError, TypeError) as error:
        raise InputError(
            "weights", str(path), "a file of save_gpt (with the model's configuration)"
        ) from error
    model = GptModel(config, seed=0)
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) == 1 and dtypes <= {torch.float32, torch.float64}:
        model = model.to(dtypes.pop())
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError("weights", str(path), f"the tensors of {config} ({error})") from error
    return model
